"use strict";
// A button and a slider that play the steps of a solution, in a saved page and in trm demo.
class Player {
  // draw(step): called to show a step; 0 is the question.
  constructor(button, slider, draw) {
    this.button = button;
    this.slider = slider;
    this.draw = draw;
    this.timer = null;
    button.addEventListener("click", () => this.toggle());
    slider.addEventListener("input", () => this.go(this.step));
  }
  get step() {
    return +this.slider.value;
  }
  get last() {
    return +this.slider.max;
  }
  set last(step) {
    this.slider.max = step;
    this.slider.disabled = this.button.disabled = step === 0;
  }
  show(step) {
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", step ? `step ${step}` : "the question");
    this.draw(step);
  }
  // To the step nearest to this number, and no further.
  go(step) {
    this.pause();
    this.show(Math.min(Math.max(step, 0), this.last));
  }
  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }
  toggle() {
    if (this.timer) return this.pause();
    if (this.step === this.last) this.show(0);
    this.button.textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.step < this.last) this.show(this.step + 1);
      if (this.step === this.last) this.pause();
    }, 500);
  }
}
