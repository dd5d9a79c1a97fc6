// A puzzle is typed, drawn, pasted or made. What is wrong with one, and where, the server says.
import { find, page, post, say } from "./page.js";
import { forget, solve, stop } from "./watch.js";

let brush = null; // what a maze is drawn with
let asked = 0; // number of the last question about an entry

const painted = () => page.offer.layout.kind === "maze";

// Begin with the first puzzle of the model chosen.
export function begin() {
  const { offer } = page;
  find("board").classList.toggle("painted", painted());
  brush = offer.palette[0].symbol;
  listPalette();
  find("format").textContent = offer.format;
  enter(offer.example ?? offer.blank);
  if (offer.example === null) generate();
}

async function enter(text, typing = false) {
  const question = ++asked;
  let read;
  try {
    read = await (await post("/entry", { model: page.offer.name, text })).json();
  } catch (error) {
    read = { ...page.entry, problem: error.message };
  }
  if (question !== asked) return; // there is a newer one
  page.entry = read;
  if (!typing) find("text").value = text.trimEnd();
  find("problem").textContent = read.problem || "";
  find("solve").disabled = read.problem !== null;
  forget();
}

async function generate() {
  stop();
  const wanted = page.offer, question = asked;
  find("generate").disabled = true;
  say("Making a puzzle…");
  try {
    const made = await (await post("/generate", { model: wanted.name })).json();
    // unless something was typed since
    if (wanted === page.offer && question === asked) await enter(made.text);
  } catch (error) {
    say(error.message, "bad");
  }
  find("generate").disabled = false;
}

function set(index, symbol) {
  const { offer, entry } = page, { columns } = offer.layout;
  if (offer.fixed.includes(index)) return;
  stop();
  const symbols = [...entry.symbols];
  if (painted() && "SG".includes(symbol) && symbols.includes(symbol)) {
    symbols[symbols.indexOf(symbol)] = "."; // there is one of each
  }
  symbols[index] = symbol;
  page.entry = { ...entry, symbols }; // the next stroke, which may come first, builds on this
  const lines = [];
  for (let at = 0; at < symbols.length; at += columns) {
    lines.push(symbols.slice(at, at + columns).join(""));
  }
  enter(lines.join(painted() ? "\n" : ""));
}

function listPalette() {
  const drawn = painted();
  const buttons = page.offer.palette.map(({ symbol, name, fill }) => {
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
      if (!drawn) return set(page.board.chosen, symbol);
      brush = symbol;
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    });
    return button;
  });
  find("palette").replaceChildren(...buttons);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { kind } = page.offer.layout;
  const blank = kind === "arithmetic" ? "0" : ".";
  let symbol = null;
  if (["Backspace", "Delete"].includes(event.key)) symbol = blank;
  else if (event.key === " ") symbol = painted() ? brush : blank;
  else if (event.key === "Enter") return solve();
  else if (/^[\p{L}\p{N}.#*]$/u.test(event.key)) symbol = painted() ? event.key.toUpperCase() : event.key;
  if (symbol === null) return;
  if (symbol === "0" && kind === "sudoku") symbol = blank;
  event.preventDefault();
  set(page.board.chosen, symbol);
}

function paint(event) {
  if (!painted() || event.buttons !== 1) return;
  const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-index]");
  if (!cell || page.entry.symbols[cell.dataset.index] === brush) return;
  cell.style.background = page.offer.palette.find(({ symbol }) => symbol === brush).fill;
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
find("clear").addEventListener("click", () => { stop(); enter(page.offer.blank); });
find("generate").addEventListener("click", generate);
