// What is shown beside an answer: notes in plain words, and errors one can do something about.
import { el, icon } from "./dom.js";
import { noteOf, sentence } from "./words.js";

/** Notes on what an answer had to do without, or how it ended early. */
export function notesOf({ degraded = [], state, finish_reason: reason }) {
  const notes = degraded.map(noteOf);
  if (state === "stopped") notes.push("Stopped before the answer was complete.");
  if (reason === "length") notes.push("The answer reached its longest allowed length.");
  if (reason === "content_filter") notes.push("The model's content filter ended the answer.");
  return notes.map((note) => el("p", { class: "note" }, icon("note"), el("span", {}, note)));
}

/**
 * A card for a Failure's fields. `retry` asks the same again, `edit` takes the question back for a change,
 * where there is a question box.
 * While Retry-After runs the retry button counts it down.
 */
export function errorCard({ title, advice, message, request, retryable, retryAt }, { retry, edit }) {
  const button = el(
    "button",
    { type: "button", class: "button primary", on: { click: retry } },
    icon("retry"),
    el("span", {}, "Try again"),
  );
  const change = edit
    ? el("button", { type: "button", class: "button", on: { click: edit } }, "Edit question")
    : null;
  if (retryable && retryAt) countDown(button, retryAt);
  return el(
    "div",
    { class: "card error", role: "alert" },
    icon("alert"),
    el(
      "div",
      {},
      el("h3", {}, title),
      advice ? el("p", {}, advice) : null,
      message ? el("p", { class: "said" }, sentence(message)) : null,
      request ? el("p", { class: "said" }, "Request ", el("code", {}, request)) : null,
      el("div", { class: "row" }, retryable ? button : null, change),
    ),
  );
}

function countDown(button, until) {
  const label = button.querySelector("span");
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    const waiting = seconds > 0;
    button.disabled = waiting;
    label.textContent = waiting ? `Try again in ${seconds} s` : "Try again";
    if (waiting) setTimeout(() => button.isConnected && tick(), 250);
  };
  tick();
}
