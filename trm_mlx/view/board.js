"use strict";
// A board of cells, in a saved page and in trm demo. A cell is [symbol, mark, fill, confidence].

// Rounded down: 100.0 % is certainty.
const percent = probability => `${(Math.floor(1000 * probability + 1e-6) / 10).toFixed(1)} %`;

// Fill a list with what the colours of a board mean.
function listColours(list, legend) {
  list.replaceChildren(...legend.map(({ words, mark, fill }) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = mark;
    swatch.style.background = fill;
    item.append(swatch, words);
    return item;
  }));
}

class Board {
  // describe(words): called with what the cell under the pointer or with the focus holds, or "".
  constructor(root, layout, describe) {
    this.layout = layout;
    this.describe = describe;
    this.shown = [];
    this.predicted = false;
    root.className = "board";
    root.setAttribute("role", "grid");
    root.style.setProperty("--columns", layout.columns);
    root.replaceChildren();
    this.cells = [];
    for (let row = 0; row < layout.rows; row++) {
      const line = root.appendChild(document.createElement("div"));
      line.setAttribute("role", "row");
      for (let column = 0; column < layout.columns; column++) this.add(line);
    }
    this.selected = 0; // Tab reaches the cell that had the focus last
    this.cells[0].tabIndex = 0;
  }
  add(line) {
    const index = this.cells.length, cell = line.appendChild(document.createElement("div"));
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = -1;
    cell.dataset.index = index;
    cell.addEventListener("focus", () => this.select(index));
    cell.addEventListener("pointerenter", () => this.describe(this.words(index)));
    cell.addEventListener("pointerleave", () => this.describeFocus());
    cell.addEventListener("blur", () => this.describe(""));
    cell.addEventListener("keydown", event => this.key(event, index));
    this.cells.push(cell);
  }
  // predicted: whether the cells are a model's, and have its confidence.
  show(cells, predicted) {
    this.shown = cells;
    this.predicted = predicted;
    const { box: [boxRows, boxColumns], rows, columns, painted, hidden } = this.layout;
    cells.forEach(([symbol, mark, fill, confidence], index) => {
      const cell = this.cells[index], [row, column] = this.place(index);
      const name = painted ? "painted" : mark === "given" && !symbol ? "blank" : mark;
      cell.className = name;
      cell.classList.toggle("right", boxColumns > 0 && column % boxColumns === 0);
      cell.classList.toggle("below", boxRows > 0 && row % boxRows === 0);
      cell.classList.toggle("end", column === columns);
      cell.classList.toggle("bottom", row === rows);
      cell.classList.toggle("sure", predicted && !painted && mark !== "given");
      cell.style.setProperty("--sure", confidence);
      cell.style.background = painted ? fill : "";
      cell.textContent = hidden.includes(symbol) ? "" : symbol;
      cell.setAttribute("aria-label", this.words(index));
    });
    this.describeFocus();
  }
  place(index) {
    return [Math.floor(index / this.layout.columns) + 1, (index % this.layout.columns) + 1];
  }
  words(index) {
    if (!this.shown.length) return "";
    const [symbol, mark, , confidence] = this.shown[index], [row, column] = this.place(index);
    const state = { wrong: "breaks a rule", filled: this.layout.filled }[mark] ?? mark;
    const what = symbol ? `${symbol}, ${state}` : mark === "given" ? "blank" : `blank, ${state}`;
    const sure = this.predicted && mark !== "given" ? `, confidence ${percent(confidence)}` : "";
    return `Row ${row}, column ${column}: ${what}${sure}`;
  }
  describeFocus() {
    const focused = this.cells.indexOf(document.activeElement);
    this.describe(focused < 0 ? "" : this.words(focused));
  }
  select(index) {
    this.cells[this.selected].tabIndex = -1;
    this.cells[this.selected].removeAttribute("aria-selected");
    this.selected = index;
    this.cells[index].tabIndex = 0;
    this.cells[index].setAttribute("aria-selected", "true");
    this.describe(this.words(index));
  }
  key(event, index) {
    const { rows, columns } = this.layout, [row, column] = this.place(index);
    const next = {
      ArrowLeft: column > 1 && index - 1,
      ArrowRight: column < columns && index + 1,
      ArrowUp: row > 1 && index - columns,
      ArrowDown: row < rows && index + columns,
      Home: index - column + 1,
      End: index - column + columns,
    }[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (next !== false) this.cells[next].focus();
  }
}
