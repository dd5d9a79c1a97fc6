// The page of trm demo: a puzzle is entered, solved by the server, and watched. Nothing is computed
// here; what models there are, and what a puzzle of each is, the server says.
import { begin } from "./entry.js";
import { allowSteps, offerOptions } from "./options.js";
import { find, page } from "./page.js";
import { stop } from "./watch.js";

const PLAIN = "Point at a cell, or move with the arrow keys.";
let offers = [];

function choose(name) {
  stop();
  const offer = offers.find(offer => offer.name === name);
  page.offer = offer;
  page.board = new Board(find("board"), offer.layout, words => {
    find("cell").textContent = words || PLAIN;
  });
  find("legend").replaceChildren(...offer.legend.map(({ name, fill }) => {
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
  offers = known.models;
  find("model").replaceChildren(...offers.map(({ name }) => new Option(name)));
  find("model").addEventListener("change", () => choose(find("model").value));
  offerOptions(known);
  choose(offers[0].name);
}
start();
