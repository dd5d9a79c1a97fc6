// How hard to try: the options of trm solve as a form.
import { find, page } from "./page.js";

const form = find("options");
let defaults = {}, meanings = {};

export function options() {
  const several = +form.trajectories.value > 1;
  return {
    trajectories: +form.trajectories.value,
    max_steps: form.max_steps.value === "" ? null : +form.max_steps.value,
    halt_threshold: form.halt_threshold.value === "" ? null : +form.halt_threshold.value,
    restarts: several && form.restarts.checked,
    symmetries: several && form.symmetries.checked,
    noise: several ? +form.noise.value : 0,
    noise_on: form.noise_on.value,
    select: form.select.value,
    seed: +form.seed.value,
  };
}

// known: what the server says of them, see /models.
export function listOptions(known) {
  ({ defaults, selectors: meanings } = known);
  form.select.replaceChildren(...Object.keys(meanings).map(name => new Option(name)));
  form.trajectories.max = known.limits.trajectories;
  form.max_steps.max = known.limits.max_steps;
  reset();
}

export function allowSteps() {
  form.max_steps.value = page.model.max_steps;
}

function reset() {
  for (const [name, value] of Object.entries(defaults)) {
    if (form[name].type === "checkbox") form[name].checked = value;
    else form[name].value = value;
  }
  if (page.model) allowSteps();
  agree();
}

function agree() {
  find("further").disabled = !(+form.trajectories.value > 1);
  find("meaning").textContent = meanings[form.select.value];
}
form.addEventListener("input", agree);
find("defaults").addEventListener("click", reset);
