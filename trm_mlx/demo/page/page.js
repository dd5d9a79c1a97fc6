// What the parts of the page of trm demo share: what is on it, and how the server is asked.
export const find = id => document.getElementById(id);

export const page = {
  offer: null, // the model chosen
  board: null,
  entry: null, // the puzzle: cells to show, symbols, wrong cells, a problem or null
};

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

export function say(sentence, tone = "") {
  find("status").textContent = sentence;
  find("status").className = tone;
}
