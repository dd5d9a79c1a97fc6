// A puzzle is typed, painted, pasted or generated. What is wrong with one, and where, the server says.
import { answered, become, find, layOut, page, post, say } from "./page.js";
import { begin as beginSolving, forget, stop } from "./watch.js";

let brush = null; // the symbol that a painted board is painted with
let reading = null; // the last entry: a promise that ends when the server has read it
let last = null; // the cell that a stroke of it has come to

const painted = () => page.model.layout.painted;

// Begin with a puzzle of the model chosen, by default its first.
export async function begin(text) {
  const { model } = page;
  brush = model.keys[0]?.symbol;
  listKeys();
  find("format").textContent = model.format;
  find("text").classList.toggle("rows", model.by_rows);
  find("level").replaceChildren(...model.levels.map(name => new Option(name)));
  find("level").selectedIndex = model.levels.length - 1; // the others are solved in a step or two
  find("level").parentElement.hidden = !model.levels.length;
  await enter(text ?? model.example ?? model.blank);
  const untouched = page.model === model && page.state === "ready" && page.text === model.blank;
  if (text === undefined && model.example === null && untouched) generate();
}

// Read another puzzle; until that is done, the board shows none.
function enter(text) {
  if (page.model === null) return;
  page.puzzle = null;
  find("text").value = text.trimEnd();
  return read(text);
}

function read(text) {
  return (reading = ask(text));
}

async function ask(text) {
  page.text = text;
  const address = new URLSearchParams({ model: page.model.name, puzzle: text });
  history.replaceState(null, "", `#${address}`);
  const signal = become("reading");
  try {
    const answer = await post("/entry", { model: page.model.name, text }, signal);
    page.puzzle = await answered(answer.json());
    layOut(page.puzzle.layout);
  } catch (error) {
    if (error.name === "AbortError") return;
    become("unread");
    return say(error.message, "bad");
  }
  find("problem").textContent = page.puzzle.problem || "";
  become(page.puzzle.problem === null ? "ready" : "invalid");
  forget();
}

async function generate() {
  if (page.model === null) return;
  page.puzzle = null;
  const signal = become("making"), level = find("level").value || null;
  try {
    const answer = await post("/generate", { model: page.model.name, level }, signal);
    enter((await answered(answer.json())).text);
  } catch (error) {
    if (error.name === "AbortError") return;
    become("unread");
    say(error.message, "bad");
  }
}

// Put a symbol into a cell; returns whether that changed the puzzle.
function put(index, symbol) {
  const { model, puzzle } = page;
  if (puzzle === null || !model.keys.length || model.fixed.includes(index)) return false;
  const symbols = [...puzzle.symbols];
  if (symbols[index] === symbol) return false;
  if (model.single.includes(symbol) && symbols.includes(symbol)) {
    symbols[symbols.indexOf(symbol)] = model.empty;
  }
  symbols[index] = symbol;
  page.puzzle = { ...puzzle, symbols }; // the next one, which may come first, builds on this
  return true;
}

function readSymbols() {
  const { model, puzzle: { layout: { columns }, symbols } } = page, lines = [];
  for (let at = 0; at < symbols.length; at += columns) {
    lines.push(symbols.slice(at, at + columns).join(""));
  }
  const text = lines.join(model.by_rows ? "\n" : "");
  find("text").value = text.trimEnd();
  read(text);
}

function set(index, symbol) {
  if (put(index, symbol)) readSymbols();
}

export async function solve() {
  if (page.model === null) return;
  if (page.state === "unread") return read(page.text);
  if (page.state === "reading") await reading;
  if (["ready", "solved"].includes(page.state)) beginSolving();
}

function listKeys() {
  const paints = painted(), { keys, erase } = page.model;
  const buttons = keys.map(({ symbol, name, fill }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.symbol = symbol;
    button.setAttribute("aria-label", name);
    if (paints) {
      const swatch = button.appendChild(document.createElement("span"));
      swatch.className = "swatch";
      swatch.style.background = fill;
      button.append(name);
      button.setAttribute("aria-pressed", symbol === brush);
    } else {
      button.append(symbol === "." && erase === "." ? "⌫" : symbol);
    }
    button.addEventListener("pointerdown", event => event.preventDefault()); // the cell stays selected
    button.addEventListener("click", () => {
      if (!paints) return set(page.board.selected, symbol);
      brush = symbol;
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    });
    return button;
  });
  find("palette").replaceChildren(...buttons);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter") return solve();
  const { keys, aliases, erase } = page.model;
  const known = symbol => keys.some(key => key.symbol === symbol);
  let symbol = aliases[event.key] ?? event.key;
  if (["Backspace", "Delete"].includes(event.key)) symbol = erase;
  else if (event.key === " ") symbol = painted() ? brush : erase;
  else if (event.key.length > 1) return;
  else if (!known(symbol) && known(symbol.toUpperCase())) symbol = symbol.toUpperCase();
  event.preventDefault();
  set(page.board.selected, symbol);
}

// A stroke from cell to cell, none left out where the pointer is fast; it is read when it ends.
function paint(event) {
  if (!painted() || event.buttons !== 1 || page.puzzle === null) return;
  const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-index]");
  if (!cell) return;
  const { columns } = page.board.layout, to = +cell.dataset.index, from = last ?? to;
  const place = index => [Math.floor(index / columns), index % columns];
  const [row, column] = place(from), [rows, across] = place(to).map((n, k) => n - [row, column][k]);
  const count = Math.max(Math.abs(rows), Math.abs(across), 1);
  const { fill } = page.model.keys.find(({ symbol }) => symbol === brush);
  for (let part = 0; part <= count; part++) {
    const index = Math.round(row + rows * part / count) * columns
      + Math.round(column + across * part / count);
    if (put(index, brush)) page.board.cells[index].style.background = fill;
  }
  last = to;
}

function endStroke() {
  if (last !== null) readSymbols();
  last = null;
}

function paste(event) {
  if (event.target.closest("input, textarea")) return;
  enter(event.clipboardData.getData("text"));
}

find("board").addEventListener("keydown", press);
find("board").addEventListener("pointerdown", event => {
  event.target.releasePointerCapture(event.pointerId);
  paint(event);
});
find("board").addEventListener("pointermove", paint);
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, endStroke);
document.addEventListener("paste", paste);
find("text").addEventListener("input", () => {
  if (page.model === null) return;
  page.puzzle = null;
  read(find("text").value);
});
find("clear").addEventListener("click", () => enter(page.model?.blank));
find("generate").addEventListener("click", generate);
find("level").addEventListener("change", generate);
find("solve").addEventListener("click", () => (page.state === "solving" ? stop() : solve()));
find("options").addEventListener("submit", event => { event.preventDefault(); solve(); });
