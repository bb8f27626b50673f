// The ask page: a question goes to /v1/chat/completions, the answer streams in, then come its sources.
// Whatever carries a citation in its data attributes opens its passage: see passage.js.

const CONSOLE = { "x-proveout-console": "1" }; // a session's cookie counts only beside this header

const byId = (id) => document.getElementById(id);
const conversation = byId("conversation");
const question = byId("question");
const app = byId("app");
let running = null; // the AbortController of the answer under way

// -- the stream ------------------------------------------------------------------------------------

/** Yields the data of each server-sent event of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split(/\r?\n\r?\n/);
    buffer = parts.pop();
    for (const part of parts) {
      const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

/** A refusal or failure in the server's own words. */
async function refusal(response) {
  try {
    return new Error((await response.json()).error.message);
  } catch {
    return new Error(`The server answered with status ${response.status}.`);
  }
}

/** Asks; `onText` gets each piece. Returns what the finish chunk says, with its `finish` reason; throws unless the
 * stream ended whole. */
async function ask(model, text, signal, onStart, onText) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { ...CONSOLE, "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: text }], stream: true }),
    signal,
  });
  onStart(response.headers.get("x-proveout-request"));
  if (!response.ok) throw await refusal(response);
  let about = {};
  for await (const data of events(response)) {
    if (data === "[DONE]") return about;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) onText(choice.delta.content);
    if (choice?.finish_reason) about = { ...chunk.proveout, finish: choice.finish_reason };
  }
  throw new Error("The connection closed before the answer was whole. Ask again.");
}

// -- one turn --------------------------------------------------------------------------------------

/** Builds elements: a tag, its properties, its children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Writes an answer as it comes: `[1]` becomes a marker; one that is cut in two waits for its rest, as space does. */
class Writer {
  constructor(element) {
    this.element = element;
    this.held = "";
  }

  write(piece) {
    const text = this.held + piece;
    const cut = text.search(/\s*(\[\d*)?$/);
    this.held = text.slice(cut);
    this.#append(text.slice(0, cut));
  }

  end() {
    this.#append(this.held.trimEnd());
    this.held = "";
  }

  #append(text) {
    for (const [position, part] of text.split(/\[(\d+)\]/).entries()) {
      if (position % 2) this.element.append(this.#marker(part));
      else if (part) this.element.append(part);
    }
  }

  #marker(number) {
    const label = `Source ${number}`;
    const marker = make("button", { type: "button", className: "marker", disabled: true, ariaLabel: label }, number);
    marker.dataset.number = number;
    return marker;
  }
}

/** Shows the sources and makes the answer's markers open them; a marker without a source is only text. */
function showSources(turn, citations) {
  const list = turn.querySelector(".sources ol");
  for (const citation of citations) {
    const item = byId("source").content.cloneNode(true);
    item.querySelector(".number").textContent = citation.number;
    const title = item.querySelector(".title");
    title.textContent = citation.title || citation.document;
    title.ariaLabel = `Source ${citation.number}: ${title.textContent}. Open the passage.`;
    Object.assign(title.dataset, citation);
    item.querySelector(".place").textContent = citation.place;
    item.querySelector("blockquote").textContent = citation.quote;
    list.append(item);
  }
  turn.querySelector(".sources").hidden = !citations.length;
  for (const marker of turn.querySelectorAll(".marker")) {
    const citation = citations.find(({ number }) => String(number) === marker.dataset.number);
    if (!citation) marker.replaceWith(`[${marker.dataset.number}]`);
    Object.assign(marker.dataset, citation);
    marker.disabled = false;
  }
}

/** The small print: release, request, time, groundedness. */
function showPrint(turn, entries) {
  const print = turn.querySelector(".print");
  for (const [term, value] of entries) {
    if (value) print.append(make("div", {}, make("dt", {}, term), make("dd", {}, value)));
  }
  print.hidden = !print.childElementCount;
}

/** Keeps feedback with a request. Throws what the server says against it. */
async function judgeIt(request, said) {
  const response = await fetch("/api/v1/feedback", {
    method: "POST",
    headers: { ...CONSOLE, "content-type": "application/json" },
    body: JSON.stringify({ request, ...said }),
  });
  if (!response.ok) throw await refusal(response);
}

/** Lets a person say what the answer was worth, then in words why; of each the last word stands. */
function showJudge(turn, request) {
  const judge = turn.querySelector(".judge");
  const status = judge.querySelector("[role=status]");
  const words = judge.querySelector(".words");
  const { comment, correction } = words.elements;
  const tell = async (said, done) => {
    try {
      await judgeIt(request, said);
      done();
    } catch (error) {
      status.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    }
  };
  judge.hidden = false;
  judge.addEventListener("click", ({ target }) => {
    const thumb = target.dataset.thumb;
    if (!thumb) return;
    tell({ thumb }, () => {
      for (const button of judge.querySelectorAll("[data-thumb]")) button.ariaPressed = button === target;
      words.hidden = false;
      correction.closest("label").hidden = thumb !== "down";
      words.scrollIntoView({ block: "nearest" });
      status.textContent = "Noted with the answer. You can say more below.";
    });
  });
  words.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = [comment, correction].filter((field) => !field.closest("label").hidden && field.value.trim());
    if (!given.length) return comment.focus();
    tell(Object.fromEntries(given.map((field) => [field.name, field.value.trim()])), () => {
      judge.querySelector("[aria-pressed=true]").focus();
      words.hidden = true;
      status.textContent = "Your words are noted with the answer.";
    });
  });
}

function grounding(about) {
  if (about.quoted) return make("span", { className: "good" }, "yes, quoted from the source");
  if (about.grounded === true) return make("span", { className: "good" }, "yes");
  if (about.grounded === false) return make("span", { className: "bad" }, "no");
  return "no sources used";
}

function showProblem(turn, heading, message, calm = false) {
  const problem = turn.querySelector(".problem");
  problem.querySelector("strong").textContent = heading;
  problem.querySelector("span").textContent = message;
  problem.classList.toggle("calm", calm);
  problem.hidden = false;
}

async function takeTurn(text) {
  const turn = byId("turn").content.cloneNode(true).querySelector("article");
  const answer = turn.querySelector(".answer");
  const writer = new Writer(answer);
  const began = Date.now();
  let request = null;
  let about = {};
  turn.querySelector(".question").textContent = text;
  conversation.append(turn);
  turn.scrollIntoView({ block: "start" });
  say("Looking in the sources.");
  try {
    const onText = (piece) => {
      turn.querySelector(".waiting").hidden = true;
      writer.write(piece);
    };
    about = await ask(app.value, text, running.signal, (id) => (request = id), onText);
    writer.end();
    // a grounded answer is whole sentences that were checked: what the model had yet to say is no loss that can be seen
    const short = about.finish === "length" && about.grounded !== true;
    if (short) showProblem(turn, "Cut short.", "The app's limit on an answer's length was reached.", true);
    say(`The answer has ended, with ${about.citations?.length ?? 0} sources.`);
  } catch (error) {
    writer.end();
    turn.classList.add("broken");
    const begun = answer.childNodes.length > 0;
    const what = error instanceof TypeError ? "The server cannot be reached. Is it running?" : error.message;
    if (error.name === "AbortError") showProblem(turn, "Stopped.", begun ? "The answer is not whole." : "", true);
    else showProblem(turn, begun ? "The answer broke off." : "There is no answer.", what);
    say("");
  }
  turn.querySelector(".waiting").remove();
  showSources(turn, about.citations ?? []);
  const whole = !turn.classList.contains("broken");
  if (whole && request) showJudge(turn, request);
  showPrint(turn, [
    ["Release", about.release],
    ["Grounded", whole && grounding(about)],
    ["Time", `${((Date.now() - began) / 1000).toFixed(1)} s, at ${new Date(began).toLocaleTimeString()}`],
    ["Request", request && make("code", {}, request)],
  ]);
}

function say(text) {
  byId("status").textContent = text;
}

// -- what a person does ----------------------------------------------------------------------------

async function submit(event) {
  event.preventDefault();
  const text = question.value.trim();
  if (running || !text) return;
  running = new AbortController();
  byId("opening").hidden = true;
  question.value = "";
  swap(byId("ask"), byId("stop"));
  await takeTurn(text);
  swap(byId("stop"), byId("ask"));
  running = null;
}

/** Shows `next` in the place of `button`, with the focus if it was there. */
function swap(button, next) {
  next.hidden = false;
  if (document.activeElement === button) next.focus({ preventScroll: true });
  button.hidden = true;
}

function enterAsks(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
}

byId("composer").addEventListener("submit", submit);
question.addEventListener("keydown", enterAsks);
byId("stop").addEventListener("click", () => running?.abort());
app.addEventListener("change", () => (byId("answers").textContent = app.selectedOptions[0].dataset.answers));
