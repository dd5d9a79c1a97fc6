// The state of the page of trm demo, one of STATES at a time, and how the server is asked.
// Every request belongs to the state in which it is made: leaving the state ends the request, so
// that an answer which comes late can change nothing.
export const find = id => document.getElementById(id);

const STATES = {
  reading: "Reading the puzzle…", // an entry waits for the server to say what it is
  unread: null, // the server could not say: "Try again" asks once more
  making: "Making a puzzle…",
  invalid: "", // the puzzle cannot be one
  ready: "Press Solve.",
  solving: "Thinking…",
  solved: null, // it has ended, right or not
};
const BUTTON = { solving: "Stop", unread: "Try again" };
const GONE = "The server does not answer. Start it again with: trm demo, then press Try again; "
  + "this page keeps the puzzle.";

export const page = {
  state: "reading",
  model: null, // the one chosen, see /models
  board: null,
  text: "", // the puzzle as text, as far as it is entered
  puzzle: null, // what the server read of it: layout, cells, symbols, indices of wrong cells,
  // problem or null; null as long as the board shows another puzzle, which must not be typed into
};
const PLAIN = "Point at a cell or tap it; arrow keys move.";
let request = new AbortController();

// Show a board of other rows and columns than before, or a first one.
export function layOut(layout) {
  const { rows, columns } = page.board?.layout ?? {};
  if (rows === layout.rows && columns === layout.columns) return;
  page.board = new Board(find("board"), layout, words => {
    find("cell").textContent = words || PLAIN;
  });
  find("board").classList.toggle("painted", layout.painted);
}

// Leave the state for another one; returns the signal that ends the requests of the new one.
export function become(state) {
  request.abort();
  request = new AbortController();
  page.state = document.body.dataset.state = state;
  if (STATES[state] !== null) say(STATES[state]);
  const button = find("solve");
  button.textContent = BUTTON[state] ?? "Solve";
  button.classList.toggle("stop", state === "solving");
  button.disabled = !["ready", "solving", "solved", "unread"].includes(state);
  find("board").setAttribute("aria-busy", page.puzzle === null);
  return request.signal;
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const answer = await answered(
    fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }));
  if (!answer.ok) throw new Error((await answered(answer.json())).error);
  return answer;
}

// Wait for something of the network; where that is lost, the error says what to do.
export async function answered(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(GONE);
  }
}

export function say(sentence, tone = "") {
  find("status").textContent = sentence;
  find("status").className = tone;
}
