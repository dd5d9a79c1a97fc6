// The page of trm demo: a puzzle is entered, solved by the server, and watched. Nothing is computed
// here; what models there are, and what a puzzle of each is, the server says.
import { begin } from "./entry.js";
import { allowSteps, listOptions } from "./options.js";
import { answered, become, find, page, say } from "./page.js";

const PLAIN = "Point at a cell or tap it; arrow keys move.";
let models = [];

// Begin with a model and, where the address says one, a puzzle.
function choose(name, text) {
  const model = models.find(model => model.name === name) ?? models[0];
  find("model").value = model.name;
  page.puzzle = null;
  page.model = model;
  page.board = new Board(find("board"), model.layout, words => {
    find("cell").textContent = words || PLAIN;
  });
  listColours(find("legend"), model.legend);
  allowSteps();
  begin(text);
}

function chooseByAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  choose(address.get("model"), address.get("puzzle") ?? undefined);
}

async function start() {
  become("reading");
  try {
    const known = await answered((await answered(fetch("/models"))).json());
    models = known.models;
    listOptions(known);
  } catch (error) {
    become("unread");
    return say(error.message, "bad");
  }
  find("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  chooseByAddress();
}
find("solve").addEventListener("click", () => {
  if (page.model === null && page.state === "unread") start();
});
find("model").addEventListener("change", () => choose(find("model").value));
addEventListener("hashchange", () => {
  if (page.model !== null) chooseByAddress();
});
start();
