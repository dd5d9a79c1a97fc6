// A puzzle is typed, painted, pasted or generated. What is wrong with one, and where, the server says.
import { find, page, post, say } from "./page.js";
import { forget, solve, stop } from "./watch.js";

let brush = null; // the symbol that a painted board is painted with
let requests = 0; // to read a puzzle, so far

const painted = () => page.model.layout.painted;

// Begin with the first puzzle of the model chosen.
export function begin() {
  const { model } = page;
  find("board").classList.toggle("painted", painted());
  brush = model.keys[0]?.symbol;
  listKeys();
  find("format").textContent = model.format;
  enter(model.example ?? model.blank);
  if (model.example === null) generate();
}

async function enter(text, typing = false) {
  const request = ++requests;
  let puzzle;
  try {
    puzzle = await (await post("/entry", { model: page.model.name, text })).json();
  } catch (error) {
    puzzle = { ...page.puzzle, problem: error.message };
  }
  if (request !== requests) return; // there is a newer one
  page.puzzle = puzzle;
  if (!typing) find("text").value = text.trimEnd();
  find("problem").textContent = puzzle.problem || "";
  find("solve").disabled = puzzle.problem !== null;
  forget();
}

async function generate() {
  stop();
  const wanted = page.model, request = requests;
  find("generate").disabled = true;
  say("Making a puzzle…");
  try {
    const made = await (await post("/generate", { model: wanted.name })).json();
    // unless something was typed since
    if (wanted === page.model && request === requests) await enter(made.text);
  } catch (error) {
    say(error.message, "bad");
  }
  find("generate").disabled = false;
}

function set(index, symbol) {
  const { model, puzzle } = page, { columns } = model.layout;
  if (!model.keys.length || model.fixed.includes(index)) return;
  stop();
  const symbols = [...puzzle.symbols];
  if (model.single.includes(symbol) && symbols.includes(symbol)) {
    symbols[symbols.indexOf(symbol)] = model.empty;
  }
  symbols[index] = symbol;
  page.puzzle = { ...puzzle, symbols }; // the next stroke, which may come first, builds on this
  const lines = [];
  for (let at = 0; at < symbols.length; at += columns) {
    lines.push(symbols.slice(at, at + columns).join(""));
  }
  enter(lines.join(model.by_rows ? "\n" : ""));
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

function paint(event) {
  if (!painted() || event.buttons !== 1) return;
  const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-index]");
  if (!cell || page.puzzle.symbols[cell.dataset.index] === brush) return;
  cell.style.background = page.model.keys.find(({ symbol }) => symbol === brush).fill;
  set(+cell.dataset.index, brush);
}

find("board").addEventListener("keydown", press);
find("board").addEventListener("pointerdown", event => {
  event.target.releasePointerCapture(event.pointerId);
  paint(event);
});
find("board").addEventListener("pointermove", paint);
find("board").addEventListener("paste", event => enter(event.clipboardData.getData("text")));
find("text").addEventListener("input", () => { stop(); enter(find("text").value, true); });
find("clear").addEventListener("click", () => { stop(); enter(page.model.blank); });
find("generate").addEventListener("click", generate);
