"use strict";
// The page of trm demo: a puzzle is entered, solved by the server, and watched. Nothing is computed
// here; what a puzzle is and what is wrong with one, the server says.
const find = id => document.getElementById(id);
const form = find("options"), slider = find("step");
const PLAIN = "Point at a cell, or move with the arrow keys.";

let offers = [], defaults = {}, meanings = {};
let offer = null; // the model chosen
let board = null;
let entry = null; // the puzzle: cells to show, symbols, wrong cells, a problem or null
let brush = null; // what a maze is drawn with
let asked = 0; // number of the last question about an entry
let runs = []; // of each trajectory, its frames; empty until something is solved
let run = 0; // the trajectory that is shown
let end = null; // how it ended
let follows = true; // the newest step is shown as it comes
let working = null; // ends the request under way
let timer = null; // of play

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

// The puzzle

function choose(name) {
  stop();
  offer = offers.find(offer => offer.name === name);
  board = new Board(find("board"), offer.layout, words => { find("cell").textContent = words || PLAIN; });
  find("board").classList.toggle("painted", offer.layout.kind === "maze");
  brush = offer.palette[0].symbol;
  listPalette();
  find("legend").replaceChildren(...offer.legend.map(({ name, fill }) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = fill ? "" : name;
    swatch.style.background = fill;
    item.append(swatch, name);
    return item;
  }));
  form.max_steps.value = offer.max_steps;
  find("format").textContent = offer.format;
  enter(offer.example ?? offer.blank);
  if (offer.example === null) generate();
}

async function enter(text, typing = false) {
  const question = ++asked;
  let read;
  try {
    read = await (await post("/entry", { model: offer.name, text })).json();
  } catch (error) {
    read = { ...entry, problem: error.message };
  }
  if (question !== asked) return; // there is a newer one
  entry = read;
  forget();
  if (!typing) find("text").value = text.trimEnd();
  find("problem").textContent = entry.problem || "";
  find("solve").disabled = entry.problem !== null;
  show(0);
}

function set(index, symbol) {
  if (offer.fixed.includes(index)) return;
  stop();
  const { kind, columns } = offer.layout;
  const symbols = [...entry.symbols];
  if (symbol === "S" || symbol === "G") {
    if (kind === "maze" && symbols.includes(symbol)) symbols[symbols.indexOf(symbol)] = ".";
  }
  symbols[index] = symbol;
  entry = { ...entry, symbols }; // so that the next stroke, which may come first, builds on this
  const lines = [];
  for (let at = 0; at < symbols.length; at += columns) {
    lines.push(symbols.slice(at, at + columns).join(""));
  }
  enter(lines.join(kind === "maze" ? "\n" : ""));
}

function listPalette() {
  const drawn = offer.layout.kind === "maze";
  const buttons = offer.palette.map(({ symbol, name, fill }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.symbol = symbol;
    button.setAttribute("aria-label", name);
    if (drawn) {
      const swatch = button.appendChild(document.createElement("span"));
      swatch.className = "swatch";
      swatch.style.background = fill;
      button.append(name);
      button.setAttribute("aria-pressed", symbol === brush);
    } else {
      button.append(symbol === "." ? "⌫" : symbol);
    }
    button.addEventListener("pointerdown", event => event.preventDefault()); // the cell stays chosen
    button.addEventListener("click", () => {
      if (!drawn) return set(board.chosen, symbol);
      brush = symbol;
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    });
    return button;
  });
  find("palette").replaceChildren(...buttons);
}

find("board").addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const blank = offer.layout.kind === "arithmetic" ? "0" : ".";
  const painted = offer.layout.kind === "maze";
  let symbol = null;
  if (["Backspace", "Delete"].includes(event.key)) symbol = blank;
  else if (event.key === " ") symbol = painted ? brush : blank;
  else if (event.key === "Enter") return solve();
  else if (/^[\p{L}\p{N}.#*]$/u.test(event.key)) symbol = painted ? event.key.toUpperCase() : event.key;
  if (symbol === null) return;
  if (symbol === "0" && offer.layout.kind === "sudoku") symbol = blank;
  event.preventDefault();
  set(board.chosen, symbol);
});

function paint(event) {
  if (offer.layout.kind !== "maze" || event.buttons !== 1) return;
  const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-index]");
  if (!cell || entry.symbols[cell.dataset.index] === brush) return;
  cell.style.background = offer.palette.find(({ symbol }) => symbol === brush).fill;
  set(+cell.dataset.index, brush);
}
find("board").addEventListener("pointerdown", event => {
  event.target.releasePointerCapture(event.pointerId);
  paint(event);
});
find("board").addEventListener("pointermove", paint);

find("board").addEventListener("paste", event => enter(event.clipboardData.getData("text")));
find("text").addEventListener("input", () => { stop(); enter(find("text").value, true); });
find("model").addEventListener("change", () => choose(find("model").value));
find("clear").addEventListener("click", () => { stop(); enter(offer.blank); });
find("generate").addEventListener("click", generate);

async function generate() {
  stop();
  const wanted = offer, question = asked;
  find("generate").disabled = true;
  say("Making a puzzle…");
  try {
    const made = await (await post("/generate", { model: wanted.name })).json();
    if (wanted === offer && question === asked) await enter(made.text); // nothing was typed since
  } catch (error) {
    say(error.message, "bad");
  }
  find("generate").disabled = false;
}

// Solving

async function solve() {
  if (working || entry.problem !== null) return;
  forget();
  working = new AbortController();
  const mine = working;
  buttons();
  say("Thinking…");
  try {
    const body = { model: offer.name, text: find("text").value, ...options() };
    for await (const event of lines((await post("/solve", body, mine.signal)).body)) take(event);
    if (end === null) say("The server has stopped.", "bad");
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, "bad");
    else if (mine === working) say("Stopped.");
  }
  if (mine === working) working = null;
  buttons();
}

async function* lines(stream) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const whole = text.split("\n");
    text = whole.pop();
    yield* whole.map(line => JSON.parse(line));
  }
}

function take(event) {
  if (event.kind === "queued" && event.ahead) say(`Waiting, ${event.ahead} before this one…`);
  if (event.kind === "error") { end = event; say(event.sentence, "bad"); }
  if (event.kind === "step") {
    (runs[event.trajectory] ??= []).push(event);
    say(`Thinking… trajectory ${event.trajectory + 1}, step ${event.step}`);
    find("seconds").textContent = seconds(event.seconds);
    if (follows) run = event.trajectory;
    show(follows ? event.step : +slider.value);
  }
  if (event.kind === "end") finish(event);
}

function finish(event) {
  end = event;
  say(event.solved ? `Solved: ${event.ending}` : `Not solved: ${event.ending}`,
    event.solved ? "right" : "bad");
  find("seconds").textContent = seconds(event.seconds);
  find("steps").textContent = event.steps;
  find("evaluations").textContent = event.evaluations;
  find("chosen").textContent = `${event.trajectory + 1} of ${event.trajectories}`;
  find("numbers").hidden = false;
  if (follows) run = event.trajectory;
  show(follows ? runs[run].length : +slider.value);
}

function stop() {
  if (working) working.abort();
}

function forget() {
  pause();
  runs = [];
  run = 0;
  end = null;
  follows = true;
  find("numbers").hidden = true;
  say(entry.problem === null ? "Press Solve." : "");
}

const seconds = value => `${value.toFixed(value < 10 ? 2 : 1)} s`;

function say(sentence, tone = "") {
  find("status").textContent = sentence;
  find("status").className = tone;
}

function buttons() {
  find("solve").textContent = working ? "Stop" : "Solve";
  find("solve").classList.toggle("stop", working !== null);
}

find("solve").addEventListener("click", () => (working ? stop() : solve()));
document.addEventListener("keydown", event => { if (event.key === "Escape") stop(); });

// Watching

function show(step) {
  const frames = runs[run] ?? [], frame = frames[step - 1];
  slider.max = frames.length;
  slider.value = step;
  slider.disabled = find("play").disabled = frames.length === 0;
  board.show(frame ? frame.cells : entry.cells, Boolean(frame));
  for (const [index, cell] of board.cells.entries()) {
    cell.setAttribute("aria-invalid", !frame && entry.wrong.includes(index));
  }
  const halting = frame ? frame.halting : 0;
  find("number").textContent = frames.length ? `${step} / ${frames.length}` : "";
  slider.setAttribute("aria-valuetext", step ? `step ${step}` : "the question");
  find("probability").textContent = frame ? `${(100 * halting).toFixed(1)} %` : "–";
  find("halting").style.width = `${100 * halting}%`;
  listTrajectories();
}

function listTrajectories() {
  const group = find("trajectories");
  if (runs.length < 2) return group.replaceChildren();
  while (group.children.length < runs.length) {
    const number = group.children.length, button = document.createElement("button");
    button.type = "button";
    button.textContent = number + 1;
    button.addEventListener("click", () => {
      pause();
      follows = false;
      run = number;
      show(runs[run].length);
    });
    group.append(button);
  }
  for (const [number, button] of [...group.children].entries()) {
    const answer = end !== null && end.trajectory === number;
    button.setAttribute("aria-pressed", number === run);
    button.classList.toggle("answer", answer);
    button.setAttribute("aria-label", `Trajectory ${number + 1}${answer ? ", the answer" : ""}`);
  }
}

function pause() {
  clearInterval(timer);
  timer = null;
  find("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  const last = runs[run].length;
  follows = false;
  if (+slider.value === last) show(0);
  find("play").textContent = "Pause";
  timer = setInterval(() => {
    if (+slider.value < runs[run].length) show(+slider.value + 1);
    if (+slider.value === runs[run].length) pause();
  }, 500);
}
find("play").addEventListener("click", play);
slider.addEventListener("input", () => { pause(); follows = false; show(+slider.value); });

// Options

function options() {
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

function fill(values) {
  for (const [name, value] of Object.entries(values)) {
    if (form[name].type === "checkbox") form[name].checked = value;
    else form[name].value = value;
  }
  form.max_steps.value = offer ? offer.max_steps : "";
  agree();
}

function agree() {
  find("further").disabled = !(+form.trajectories.value > 1);
  find("meaning").textContent = meanings[form.select.value];
}
form.addEventListener("input", agree);
form.addEventListener("submit", event => { event.preventDefault(); solve(); });
find("defaults").addEventListener("click", () => fill(defaults));

async function start() {
  const known = await (await fetch("/models")).json();
  ({ models: offers, defaults, selectors: meanings } = known);
  find("model").replaceChildren(...offers.map(({ name }) => new Option(name)));
  form.select.replaceChildren(...Object.keys(meanings).map(name => new Option(name)));
  form.trajectories.max = known.limits.trajectories;
  form.max_steps.max = known.limits.max_steps;
  fill(defaults);
  choose(offers[0].name);
}
start();
