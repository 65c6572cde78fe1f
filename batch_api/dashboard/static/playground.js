// The playground: a conversation with a model, streamed from the API as any client has it. What a
// model writes is only ever set as text. Nothing of it is kept: it goes with the page.
"use strict";

const it = (id) => document.getElementById(id);
let turns = []; // as the API wants them, without the system's
let running = null; // the AbortController of the answer that is coming
let asking = null; // the promise of the models

async function failure(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

async function loadModels() {
  const problem = it("models-problem");
  try {
    const answer = await fetch("/v1/models");
    if (!answer.ok) throw new Error(await failure(answer));
    const ids = (await answer.json()).data.map((model) => model.id);
    it("model").replaceChildren(...ids.map((id) => new Option(id, id)));
    problem.hidden = ids.length > 0;
    problem.textContent = "No upstream tells a model; nothing can be sent yet.";
  } catch (error) {
    problem.hidden = false;
    problem.textContent = `The models can't be listed: ${error.message}`;
  }
}

// Until there are some: workers may still load when the page is opened.
async function needModels() {
  if (it("model").value) return;
  asking ??= loadModels().finally(() => (asking = null));
  await asking;
}

function addTurn(role, text) {
  const turn = document.createElement("li");
  const who = document.createElement("b");
  const words = document.createElement("p");
  turn.className = role;
  who.textContent = role === "user" ? "You" : it("model").value;
  words.textContent = text;
  turn.append(who, words);
  it("turns").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  return words;
}

function request() {
  const system = it("system").value.trim();
  const body = {
    model: it("model").value,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...turns],
    stream: true,
    stream_options: { include_usage: true },
  };
  if (it("temperature").value) body.temperature = Number(it("temperature").value);
  if (it("max_tokens").value) body.max_tokens = Number(it("max_tokens").value);
  return body;
}

// The data of each event, as they come. An event may be cut anywhere, within a character too.
async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (held + (value ?? "")).split("\n");
    held = done ? "" : lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:") && line.trim() !== "data: [DONE]") yield JSON.parse(line.slice(5));
    }
    if (done) return;
  }
}

function tellFigures(begun, first, tokens) {
  const now = performance.now();
  const seconds = Math.max((now - first) / 1000, 0.001);
  const speed = tokens > 1 ? `${((tokens - 1) / seconds).toFixed(1)} tokens/s · ` : "";
  it("figures").textContent = `${speed}first token after ${((first - begun) / 1000).toFixed(2)} s · ${tokens} ${tokens === 1 ? "token" : "tokens"}`;
}

// Writes into `words` as it comes; returns the whole text.
async function stream(words, signal) {
  const begun = performance.now();
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request()),
    signal,
  });
  if (!answer.ok) throw new Error(await failure(answer));
  let first = 0, tokens = 0;
  for await (const event of eventsOf(answer.body)) {
    if (event.error) throw new Error(event.error.message);
    const delta = event.choices?.[0]?.delta;
    const text = delta?.content ?? delta?.reasoning_content ?? "";
    if (text) {
      first ||= performance.now();
      tokens += 1;
      words.append(text);
      it("turns").lastElementChild.scrollIntoView({ block: "nearest" });
    }
    tokens = event.usage?.completion_tokens ?? tokens;
    if (first) tellFigures(begun, first, tokens);
  }
}

function show(isRunning) {
  it("send").disabled = isRunning;
  it("stop").hidden = !isRunning;
}

async function send() {
  await needModels();
  const text = it("text").value;
  if (running || !text.trim() || !it("model").value) return;
  it("text").value = "";
  it("figures").textContent = "";
  it("whole").textContent = "";
  const said = turns; // "New conversation" begins others meanwhile
  said.push({ role: "user", content: text });
  addTurn("user", text);
  const words = addTurn("assistant", "");
  running = new AbortController();
  show(true);
  try {
    await stream(words, running.signal);
    it("whole").textContent = words.textContent;
  } catch (error) {
    tellProblem(words, error);
  } finally {
    // Roles take turns: what nothing was answered to is not sent again.
    if (words.textContent) said.push({ role: "assistant", content: words.textContent });
    else said.pop();
    running = null;
    show(false);
    it("text").focus();
  }
}

// A stop is none.
function tellProblem(words, error) {
  const line = document.createElement("p");
  line.className = error.name === "AbortError" ? "soft" : "error";
  line.textContent = error.name === "AbortError" ? "Stopped." : error.message;
  line.setAttribute("role", "alert");
  words.after(line);
}

it("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
it("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    send();
  }
});
it("stop").addEventListener("click", () => running?.abort());
it("clear").addEventListener("click", () => {
  running?.abort();
  turns = [];
  it("turns").replaceChildren();
  it("figures").textContent = "";
  it("whole").textContent = "";
  it("text").focus();
});
window.addEventListener("focus", needModels);
needModels();
it("text").focus();
