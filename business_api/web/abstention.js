// In place of an answer: that the documents do not hold one, and what comes nearest.
import { el, icon } from "./dom.js";
import { percent, unmarked } from "./words.js";

/** `text` is what was said; `answerable` a probability or undefined; `open(passage)` shows one of `passages`. */
export function abstention({ text, answerable, passages }, open) {
  const [headline, rest] = told(text);
  const judged = Number.isFinite(answerable)
    ? `They are judged ${percent(answerable)} likely to hold the answer.`
    : null;
  return el(
    "section",
    { class: "card abstention", "aria-label": "No answer" },
    icon("nothing"),
    el(
      "div",
      {},
      el("h3", {}, headline),
      el("p", {}, [rest, judged, "The language model was not asked."].filter(Boolean).join(" ")),
      passages.length ? nearest(passages, open) : null,
    ),
  );
}

/** The first sentence, and the rest. */
function told(text) {
  const [, first, rest = ""] = /^(.*?[.!?])(?:\s+([^]*))?$/.exec(text.trim()) ?? [null, text];
  return [first.replace(/\.$/, ""), rest];
}

function nearest(passages, open) {
  const items = passages.map((passage) => {
    const { marker, title, document: name, heading = [], text } = passage;
    const on = { click: () => open(passage) };
    const path = heading.length ? el("small", {}, heading.join(" › ")) : null;
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: "near", on },
        el("span", { class: "chip-number" }, String(marker)),
        el("span", {}, el("b", {}, title || name), path, el("span", { class: "glimpse" }, unmarked(text))),
      ),
    );
  });
  return el("ol", { class: "nearest", "aria-label": "Nearest passages" }, items);
}
