// The foot of an answer: documents cited, what one can do with it, how long it took, and the rest on demand.
import { explainView } from "./candidates.js";
import { documentsCited } from "./conversation.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { thumbs } from "./feedback.js";
import { toFirstWords, waterfall } from "./waterfall.js";
import { ago, attemptsOf, counted, duration, outcomeOf, percent } from "./words.js";

/**
 * `turn` has ended. `open(number, citation)` shows a passage, `retry` asks again, `explain` asks again for an
 * explained answer, `rated` keeps a rating.
 */
export function foot(turn, { open, retry, explain, rated }) {
  const { tandem, exchange } = turn;
  const actions = el(
    "div",
    { class: "actions" },
    turn.answer ? copyButton("Copy answer", () => turn.answer) : null,
    iconButton("retry", "Ask again", retry),
    exchange ? thumbs(exchange, turn.rating, rated) : null,
    tandem ? timing(tandem) : null,
  );
  const folds = [
    searchedFor(turn) ? folded("Explain", () => explanation(turn, open, explain), turn.opened) : null,
    tandem || exchange ? folded("Details", () => detailsOf(turn)) : null,
  ].filter(Boolean);
  actions.append(...folds.map(({ toggle }) => toggle));
  return el(
    "footer",
    { class: "foot" },
    sources(turn, open),
    el(
      "div",
      {},
      actions,
      folds.map(({ fold }) => fold),
    ),
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
        const doubtful = citations.every(({ supported }) => supported === false);
        return el(
          "button",
          { type: "button", class: "chip", title: name, on },
          el("span", { class: "chip-number" }, numbers),
          title || name,
          doubtful ? el("span", { class: "doubt" }, "not supported") : null,
        );
      }),
    );
  }
  if (!passages.length || state === "failed" || tandem?.outcome === "abstained") return null;
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

function timing({ timings_ms: timings = {}, cached }) {
  const first = toFirstWords(timings);
  const parts = [
    cached ? "given before" : null,
    first === null ? null : `first words ${duration(first)}`,
    Number.isFinite(timings.total) ? `total ${duration(timings.total)}` : null,
  ];
  return el("span", { class: "timing" }, parts.filter(Boolean).join(" · "));
}

/** A button and what it unfolds, made when it is first wanted. */
function folded(name, content, opened = false) {
  const fold = el("div", { class: "details", hidden: true });
  const toggle = el("button", { type: "button", class: "link", "aria-expanded": "false" }, name);
  const turn = () => {
    fold.hidden = !fold.hidden;
    toggle.setAttribute("aria-expanded", String(!fold.hidden));
    if (!fold.firstChild) fold.append(...content());
  };
  toggle.addEventListener("click", () => {
    turn();
    if (!fold.hidden) fold.scrollIntoView({ block: "nearest" });
  });
  if (opened) turn();
  return { toggle, fold };
}

const searchedFor = ({ tandem }) => tandem?.versions?.index || tandem?.explain?.query;

function explanation({ tandem, passages }, open, explain) {
  if (tandem.explain) return explainView(tandem.explain, passages, ({ marker }) => open(marker, null));
  return [
    el("p", { class: "tally" }, "This question did not ask how the passages were chosen."),
    el(
      "div",
      { class: "row" },
      el(
        "button",
        { type: "button", class: "button", on: { click: explain } },
        icon("retry"),
        "Ask again and explain",
      ),
    ),
  ];
}

function detailsOf({ tandem, exchange, usage }) {
  const facts = tandem
    ? [["outcome", outcomeOf(tandem.outcome)], ...Object.entries(tandem.versions ?? {})]
    : [];
  if (Number.isFinite(tandem?.answerable)) facts.push(["answerable", percent(tandem.answerable)]);
  if (tandem?.cached) facts.push(["first given", `${ago(tandem.cached.age_s)}, in ${tandem.cached.exchange}`]);
  if (tandem?.attempts) facts.push(["servers", attemptsOf(tandem.attempts)]);
  if (usage) facts.push(["tokens", `${usage.prompt_tokens} read, ${usage.completion_tokens} written`]);
  const rows = facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))));
  if (exchange) {
    const link = el("a", { href: `/exchanges/${encodeURIComponent(exchange)}` }, exchange);
    rows.push(el("div", {}, el("dt", {}, "exchange"), el("dd", {}, link)));
  }
  return [tandem ? waterfall(tandem.timings_ms ?? {}) : "", el("dl", { class: "facts" }, rows)];
}
