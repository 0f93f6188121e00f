// The passage panel: beside the conversation on wide screens, a sheet from below on narrow ones.
import { el, icon, iconButton } from "./dom.js";
import { quotedText } from "./quotes.js";

const panel = document.getElementById("panel");
const narrow = matchMedia("(max-width: 899px)");
let opener = null;

/**
 * Show passage `number` of `passages` (numbered from 1 as their markers). `citations`: those of the answer,
 * whose quotes are marked; `chosen`: the one that was opened, or null. The focus goes back when it closes.
 */
export function openPassage({ passages, citations, number, chosen = null }) {
  const passage = passages.find((candidate) => candidate.marker === number);
  if (!passage) return;
  if (!panel.contains(document.activeElement)) opener = document.activeElement;
  const own = citations.filter((citation) => citation.marker === number);
  const go = (other) => openPassage({ passages, citations, number: other });
  panel.replaceChildren(
    head(),
    ...(passages.length > 1 ? [tabs(passages, number, go)] : []),
    body(passage, own, chosen ?? own[0] ?? null),
  );
  show();
  panel.querySelector("mark.chosen")?.scrollIntoView({ block: "nearest" });
}

export const panelIsOpen = () => panel.open;

export function closePanel() {
  if (panel.open) panel.close();
}

function head() {
  return el(
    "div",
    { class: "panel-head" },
    el("h2", { id: "panel-title", tabindex: "-1" }, "Passage"),
    iconButton("close", "Close passage", closePanel),
  );
}

function tabs(passages, number, go) {
  const buttons = passages.map(({ marker, title }) =>
    el(
      "button",
      {
        type: "button",
        class: "tab",
        "aria-label": `Passage ${marker}: ${title}`,
        "aria-current": marker === number ? "true" : null,
        on: {
          click: () => {
            go(marker);
            panel.querySelector("[aria-current]").focus();
          },
        },
      },
      String(marker),
    ),
  );
  return el("div", { class: "tabs", role: "group", "aria-label": "Passages of this answer" }, buttons);
}

function body(passage, own, chosen) {
  const { title, document: name, heading = [], score } = passage;
  const path = heading.length ? el("p", { class: "path" }, heading.join(" › ")) : null;
  const found = Number.isFinite(score) ? `Score ${score.toFixed(2)}` : null;
  return el(
    "div",
    { class: "panel-body", tabindex: "0", role: "region", "aria-label": title },
    el("h3", {}, title),
    path,
    el("div", { class: "passage" }, quotedText(passage, own, chosen)),
    notesOn(chosen),
    el(
      "p",
      { class: "source" },
      icon("document"),
      el("span", {}, name),
      found ? el("span", { class: "score" }, found) : null,
    ),
  );
}

/** What is to be known of the citation that was opened. */
function notesOn(citation) {
  const notes = [
    citation?.supported === false
      ? ["alert", "This passage does not seem to support the sentence that cites it.", "note doubt"]
      : null,
    citation?.by === "match"
      ? ["note", "This sentence was matched to the passage by its words, not cited by the model.", "note"]
      : null,
  ];
  return notes
    .filter(Boolean)
    .map(([drawing, text, kind]) => el("p", { class: kind }, icon(drawing), el("span", {}, text)));
}

function show() {
  document.body.classList.add("with-panel");
  if (!panel.open && narrow.matches) panel.showModal();
  if (!panel.open) panel.show();
  document.getElementById("panel-title").focus();
}

panel.addEventListener("close", () => {
  document.body.classList.remove("with-panel");
  if (opener?.isConnected) opener.focus();
  opener = null;
});
panel.addEventListener("click", (event) => {
  if (event.target === panel && narrow.matches) closePanel(); // beside the sheet
});
narrow.addEventListener("change", closePanel);
