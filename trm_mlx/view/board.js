"use strict";
// A board of cells, in a saved film and in trm demo. A cell is [symbol, mark, fill, confidence].
class Board {
  // told(words): what the cell under the pointer or with the focus holds; "" for none.
  constructor(root, layout, told) {
    this.layout = layout;
    this.told = told;
    this.drawn = layout.kind === "maze" || layout.kind === "arc";
    this.shown = [];
    this.thought = false;
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
    this.chosen = 0; // Tab reaches the cell that had the focus last
    this.cells[0].tabIndex = 0;
  }
  add(line) {
    const index = this.cells.length, cell = line.appendChild(document.createElement("div"));
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = -1;
    cell.dataset.index = index;
    cell.addEventListener("focus", () => this.chose(index));
    cell.addEventListener("pointerenter", () => this.told(this.words(index)));
    cell.addEventListener("pointerleave", () => this.tell());
    cell.addEventListener("blur", () => this.told(""));
    cell.addEventListener("keydown", event => this.key(event, index));
    this.cells.push(cell);
  }
  // cells: one array each; thought: whether a model is sure of them, more or less.
  show(cells, thought) {
    this.shown = cells;
    this.thought = thought;
    cells.forEach(([symbol, mark, fill, sure], index) => {
      const cell = this.cells[index], [row, column] = this.place(index);
      const { box: [boxRows, boxColumns], rows, columns } = this.layout;
      const name = this.drawn ? "drawn" : mark === "given" && !symbol ? "blank" : mark;
      cell.className = name;
      cell.classList.toggle("right", boxColumns > 0 && column % boxColumns === 0);
      cell.classList.toggle("below", boxRows > 0 && row % boxRows === 0);
      cell.classList.toggle("end", column === columns);
      cell.classList.toggle("bottom", row === rows);
      cell.classList.toggle("sure", thought && !this.drawn && mark !== "given");
      cell.style.setProperty("--sure", sure);
      cell.style.background = this.drawn ? fill : "";
      cell.textContent = this.layout.kind === "arc" ? "" : symbol;
      cell.setAttribute("aria-label", this.words(index));
    });
    this.tell();
  }
  place(index) {
    return [Math.floor(index / this.layout.columns) + 1, (index % this.layout.columns) + 1];
  }
  words(index) {
    const [symbol, mark, , sure] = this.shown[index], [row, column] = this.place(index);
    const what = symbol ? `${symbol}, ${mark}` : mark === "given" ? "blank" : `blank, ${mark}`;
    const confidence = this.thought ? `, confidence ${(100 * sure).toFixed(1)} %` : "";
    return `Row ${row}, column ${column}: ${what}${confidence}`;
  }
  tell() {
    const focused = this.cells.indexOf(document.activeElement);
    this.told(focused < 0 ? "" : this.words(focused));
  }
  chose(index) {
    this.cells[this.chosen].tabIndex = -1;
    this.cells[this.chosen].removeAttribute("aria-selected");
    this.chosen = index;
    this.cells[index].tabIndex = 0;
    this.cells[index].setAttribute("aria-selected", "true");
    this.told(this.words(index));
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
