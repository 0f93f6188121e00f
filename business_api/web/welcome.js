// What is shown before the first question: what this assistant does, and questions to begin with.
import { el } from "./dom.js";

const place = document.getElementById("welcome");

/** Show or hide it. `assistant`: one of /v1/models, or null while unknown. `ask(text)` takes a suggestion. */
export function showWelcome(shown, assistant, ask) {
  place.hidden = !shown;
  if (!shown) return;
  const { description = "", suggestions = [] } = assistant?.tandem ?? {};
  const buttons = suggestions.map((text) =>
    el("button", { type: "button", class: "suggestion", on: { click: () => ask(text) } }, text),
  );
  place.replaceChildren(
    el("h1", {}, "What would you like to know?"),
    el("p", { class: "lead" }, description),
    el("div", { class: "suggestions" }, buttons),
  );
}
