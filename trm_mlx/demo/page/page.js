// What the parts of the page of trm demo share: what is on it, and how the server is asked.
export const find = id => document.getElementById(id);

export const page = {
  model: null, // the one chosen, see /models
  board: null,
  puzzle: null, // as far as it is typed: cells, symbols, indices of wrong cells, problem or null
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
