// The foot of an answer: documents cited, what one can do with it, how long it took, and the rest on demand.
import { documentsCited } from "./conversation.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { thumbs } from "./feedback.js";
import { toFirstWords, waterfall } from "./waterfall.js";
import { counted, duration, outcomeOf } from "./words.js";

/** `turn` has ended. `open(number, citation)` shows a passage, `retry` asks again, `rated` keeps a rating. */
export function foot(turn, { open, retry, rated }) {
  const { tandem, exchange } = turn;
  const actions = el(
    "div",
    { class: "actions" },
    turn.answer ? copyButton("Copy answer", () => turn.answer) : null,
    iconButton("retry", "Ask again", retry),
    exchange ? thumbs(exchange, turn.rating, rated) : null,
    tandem ? timing(tandem) : null,
  );
  return el(
    "footer",
    { class: "foot" },
    sources(turn, open),
    tandem || exchange ? withDetails(actions, turn) : actions,
  );
}

function sources({ tandem, passages, state }, open) {
  const cited = documentsCited(tandem?.citations ?? []);
  if (cited.length) {
    return el(
      "div",
      { class: "sources" },
      cited.map(({ document: name, title, citations }) => {
        const numbers = [...new Set(citations.map((citation) => citation.marker))].join(" ");
        const on = { click: () => open(citations[0].marker, citations[0]) };
        return el(
          "button",
          { type: "button", class: "chip", title: name, on },
          el("span", { class: "chip-number" }, numbers),
          title || name,
        );
      }),
    );
  }
  if (!passages.length || state === "failed") return null;
  const on = { click: () => open(passages[0].marker, null) };
  return el(
    "div",
    { class: "sources" },
    el(
      "button",
      { type: "button", class: "chip", on },
      icon("document"),
      `${counted(passages.length, "passage")} read, none cited`,
    ),
  );
}

function timing({ timings_ms: timings = {} }) {
  const first = toFirstWords(timings);
  const parts = [
    first === null ? null : `first words ${duration(first)}`,
    Number.isFinite(timings.total) ? `total ${duration(timings.total)}` : null,
  ];
  return el("span", { class: "timing" }, parts.filter(Boolean).join(" · "));
}

function withDetails(actions, turn) {
  const details = el("div", { class: "details", hidden: true });
  const toggle = el("button", { type: "button", class: "link", "aria-expanded": "false" }, "Details");
  toggle.addEventListener("click", () => {
    details.hidden = !details.hidden;
    toggle.setAttribute("aria-expanded", String(!details.hidden));
    if (!details.firstChild) details.append(...detailsOf(turn));
  });
  actions.append(toggle);
  return el("div", {}, actions, details);
}

function detailsOf({ tandem, exchange, usage }) {
  const facts = tandem
    ? [["outcome", outcomeOf(tandem.outcome)], ...Object.entries(tandem.versions ?? {})]
    : [];
  if (usage) facts.push(["tokens", `${usage.prompt_tokens} read, ${usage.completion_tokens} written`]);
  const rows = facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))));
  if (exchange) {
    const link = el("a", { href: `/exchanges/${encodeURIComponent(exchange)}` }, exchange);
    rows.push(el("div", {}, el("dt", {}, "exchange"), el("dd", {}, link)));
  }
  return [tandem ? waterfall(tandem.timings_ms ?? {}) : "", el("dl", { class: "facts" }, rows)];
}
