// The page of trm demo: a puzzle is entered, solved by the server, and watched. Nothing is computed
// here; what models there are, and what a puzzle of each is, the server says.
import { begin } from "./entry.js";
import { allowSteps, listOptions } from "./options.js";
import { find, page } from "./page.js";
import { stop } from "./watch.js";

const PLAIN = "Point at a cell, or move with the arrow keys.";
let models = [];

function choose(name) {
  stop();
  const model = models.find(model => model.name === name);
  page.model = model;
  page.board = new Board(find("board"), model.layout, words => {
    find("cell").textContent = words || PLAIN;
  });
  find("legend").replaceChildren(...model.legend.map(({ name, fill }) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = fill ? "" : name;
    swatch.style.background = fill;
    item.append(swatch, name);
    return item;
  }));
  allowSteps();
  begin();
}

async function start() {
  const known = await (await fetch("/models")).json();
  models = known.models;
  find("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  find("model").addEventListener("change", () => choose(find("model").value));
  listOptions(known);
  choose(models[0].name);
}
start();
