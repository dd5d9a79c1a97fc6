// A puzzle is solved by the server, and its steps are watched.
import { options } from "./options.js";
import { answered, become, find, page, post, say } from "./page.js";

let runs = []; // of each trajectory, its frames; empty until something is solved
let run = 0; // the trajectory that is shown
let end = null; // how it ended
let tries = 1; // how many trajectories were allowed
let follows = true; // the newest step is shown as it comes

const player = new Player(find("play"), find("step"), draw);

export async function begin() {
  forget();
  const signal = become("solving");
  try {
    const body = { model: page.model.name, text: page.text, ...options() };
    tries = body.trajectories;
    for await (const event of lines((await post("/solve", body, signal)).body)) {
      signal.throwIfAborted(); // the rest of what has come already
      take(event);
    }
    if (end === null) throw new Error("The server has stopped; start it again with: trm demo");
  } catch (error) {
    if (error.name === "AbortError") return;
    become("ready");
    say(error.message, "bad");
  }
}

export function stop() {
  if (page.state !== "solving") return;
  become("ready");
  say("Stopped.");
}

// Show the puzzle as it is entered.
export function forget() {
  player.pause();
  runs = [];
  run = 0;
  end = null;
  follows = true;
  find("numbers").hidden = true;
  show(0);
}

async function* lines(stream) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await answered(reader.read());
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const whole = text.split("\n");
    text = whole.pop();
    yield* whole.map(line => JSON.parse(line));
  }
}

function take(event) {
  if (event.kind === "queued" && event.ahead) say(`Waiting, ${event.ahead} before this one…`);
  if (event.kind === "error") throw new Error(event.sentence);
  if (event.kind === "step") {
    (runs[event.trajectory] ??= []).push(event);
    find("seconds").textContent = seconds(event.seconds);
    if (follows) run = event.trajectory;
    show(follows ? event.step : player.step);
  }
  if (event.kind === "end") finish(event);
}

function finish(event) {
  end = event;
  become("solved");
  say(event.solved ? `Solved: ${event.ending}` : `Not solved: ${event.ending}`,
    event.solved ? "right" : "bad");
  find("seconds").textContent = seconds(event.seconds);
  find("steps").textContent = event.steps;
  find("evaluations").textContent = event.evaluations;
  const made = event.trajectories > 1 ? ` of ${event.trajectories}` : "";
  find("chosen").textContent = `${event.trajectory + 1}${made}`;
  find("numbers").hidden = false;
  if (follows) run = event.trajectory;
  show(follows ? runs[run].length : player.step);
}

const seconds = value => `${value.toFixed(value < 10 ? 2 : 1)} s`;

// A step of the trajectory that is shown.
function show(step) {
  player.last = (runs[run] ?? []).length;
  player.show(step);
}

function draw(step) {
  const { board, puzzle } = page, frames = runs[run] ?? [], frame = frames[step - 1];
  if (puzzle === null) return;
  board.show(frame ? frame.cells : puzzle.cells, Boolean(frame));
  for (const [index, cell] of board.cells.entries()) {
    cell.setAttribute("aria-invalid", !frame && puzzle.wrong.includes(index));
  }
  const halting = frame ? frame.halting : 0;
  find("number").textContent = frames.length ? `${step} of ${frames.length}` : "";
  find("attempt").textContent = frame && tries > 1 ? `Attempt ${run + 1} of ${tries}` : "";
  find("probability").textContent = frame ? percent(halting) : "–";
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
      player.pause();
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
    button.setAttribute("aria-label", `Attempt ${number + 1}${answer ? ", the answer" : ""}`);
  }
}

find("play").addEventListener("click", () => { follows = false; });
find("step").addEventListener("input", () => { follows = false; });
document.addEventListener("keydown", event => { if (event.key === "Escape") stop(); });
