// The chat page: one conversation, asked turn by turn.
import { ask, Failure, models } from "./api.js";
import { fill, showRunning, wireComposer } from "./composer.js";
import { keep, kept, newTurn } from "./conversation.js";
import { el, say } from "./dom.js";
import { closePanel, panelIsOpen } from "./panel.js";
import { explainWanted, offerExplain, wantExplain } from "./explain_switch.js";
import { follow, goToEnd } from "./scrolling.js";
import { turnView } from "./turn.js";
import { showWelcome } from "./welcome.js";

const turns = document.getElementById("turns");
const picker = document.getElementById("assistant");
let chat = kept();
let assistants = [];
let running = null; // the AbortController of the answer that is being written

const assistant = () => assistants.find(({ id }) => id === chat.assistant) ?? assistants[0] ?? null;
const welcome = () => showWelcome(chat.turns.length === 0, assistant(), begin);

function begin(question, how = {}) {
  if (running) return;
  const turn = newTurn(question, how);
  chat.turns.push(turn);
  run(turn, addView(turn));
}

function addView(turn) {
  const view = turnView(turn, {
    retry: () => again(turn, view, { anew: true }),
    explain: () => {
      wantExplain(true);
      again(turn, view, { opened: true });
    },
    edit: () => {
      remove(turn, view);
      fill(turn.question);
    },
    rated: (rating) => {
      turn.rating = rating;
      keep(chat);
    },
  });
  turns.append(view.element);
  welcome();
  return view;
}

function again(turn, view, how) {
  if (running) return;
  remove(turn, view);
  begin(turn.question, how);
}

function remove(turn, view) {
  chat.turns = chat.turns.filter((other) => other !== turn);
  view.element.remove();
  keep(chat);
  welcome();
}

/** Ask the turn's question and write down what comes. Ends with the turn done, stopped or failed. */
async function run(turn, view) {
  const mine = new AbortController();
  running = mine;
  closePanel();
  showRunning(true);
  goToEnd();
  keep(chat);
  say("Searching the documents");
  const draw = oncePerFrame(() => {
    view.update();
    follow();
  });
  try {
    const question = {
      message: turn.question,
      conversation: chat.conversation ?? undefined,
      assistant: assistant()?.id,
      tandem: wanted(turn),
    };
    for await (const event of ask(question, mine.signal)) {
      if (running !== mine) return; // another chat has begun
      note(turn, event);
      draw();
    }
  } catch (error) {
    fail(turn, error, mine.signal.aborted);
  } finally {
    if (running === mine) end(view);
  }
}

function wanted({ anew }) {
  const explain = explainWanted();
  return explain || anew ? { ...(explain && { explain }), ...(anew && { cache: false }) } : undefined;
}

function note(turn, { event, ...fields }) {
  if (event === "delta") turn.answer += fields.text;
  if (event === "passages") {
    Object.assign(turn, {
      exchange: fields.exchange,
      passages: fields.passages,
      degraded: fields.degraded ?? [],
    });
    chat.conversation = fields.conversation ?? chat.conversation;
  }
  if (event === "answer") {
    const { answer, tandem, usage, finish_reason, conversation } = fields;
    Object.assign(turn, {
      answer,
      tandem,
      usage,
      finish_reason,
      state: "done",
      exchange: tandem?.exchange ?? turn.exchange,
    });
    chat.conversation = conversation ?? chat.conversation;
  }
}

function fail(turn, error, stopped) {
  turn.state = stopped ? "stopped" : "failed";
  if (stopped) return;
  const failure = error instanceof Failure ? error : new Failure("This page failed to show the answer.");
  const { title, advice, message, request, retryable, retryAfter, tandem } = failure;
  turn.tandem = tandem ?? null;
  turn.error = {
    title,
    advice,
    message,
    request,
    retryable,
    retryAt: retryAfter === null ? null : Date.now() + retryAfter * 1000,
  };
}

function end(view) {
  running = null;
  showRunning(false);
  view.update();
  follow();
  keep(chat);
  const { state, tandem } = chat.turns.at(-1) ?? {};
  const done = tandem?.outcome === "abstained" ? "The documents do not answer this" : "Answer complete";
  say({ done, stopped: "Stopped" }[state] ?? "");
}

function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

function newChat() {
  const left = running;
  running = null;
  left?.abort();
  closePanel();
  chat = { conversation: null, assistant: chat.assistant, turns: [] };
  keep(chat);
  turns.replaceChildren();
  showRunning(false);
  welcome();
  fill("");
  say("New chat");
}

async function loadAssistants() {
  try {
    assistants = await models();
  } catch {
    return; // asking still works, with the default assistant; what is wrong is said then
  }
  picker.replaceChildren(
    ...assistants.map(({ id }) => el("option", { value: id, selected: id === assistant()?.id }, id)),
  );
  picker.closest("label").hidden = assistants.length < 2;
  describe();
  welcome();
}

function describe() {
  const { description = "", retrieval = true } = assistant()?.tandem ?? {};
  picker.title = description;
  document.getElementById("question").placeholder = retrieval ? "Ask the documents" : "Ask the model";
  offerExplain(retrieval);
}

picker.addEventListener("change", () => {
  chat.assistant = picker.value;
  keep(chat);
  describe();
  welcome();
});
document.getElementById("new-chat").addEventListener("click", newChat);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog.modal[open]"))
    return;
  if (panelIsOpen()) closePanel();
  else running?.abort();
});
wireComposer({ ask: begin, halt: () => running?.abort() });
chat.turns.forEach(addView);
welcome();
goToEnd();
loadAssistants();
if (matchMedia("(hover: hover)").matches) document.getElementById("question").focus();
// Leaving the page stops the answer, before the browser breaks the connection and it looks like a failure.
addEventListener("beforeunload", () => running?.abort());
addEventListener("pagehide", () => keep(chat));
