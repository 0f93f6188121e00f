// How the passages of an answer were chosen: what was searched for, and each candidate's way through the stages.
import { el, icon } from "./dom.js";
import { counted } from "./words.js";

const STAGES = [
  ["dense", "Dense", "by meaning"],
  ["bm25", "BM25", "by words"],
  ["fused", "Fused", "both"],
  ["rerank", "Reranked", "by a model"],
];
const FIRST = 8;
const DOUBLE = "duplicate of ";
const FILTERS = {
  documents: (names) => `in ${names.join(" or ")}`,
  language: (name) => `in the language ${name}`,
  tags: (names) => `tagged ${names.join(" or ")}`,
  after: (day) => `from ${day} on`,
  before: (day) => `until ${day}`,
};

/**
 * Nodes for `explain` of the tandem object. `passages` are those of the answer; `open(passage)` shows one.
 */
export function explainView({ query, candidates }, passages, open) {
  if (!query) return [el("p", { class: "note" }, icon("note"), el("span", {}, "Nothing was searched."))];
  if (!candidates.length) return [searched(query), el("p", { class: "tally" }, "Nothing was found.")];
  const kept = candidates.filter(({ fate }) => fate === "kept").length;
  const tally = `${counted(candidates.length, "candidate")} found, ${kept} kept. Each stage shows rank and score.`;
  return [searched(query), el("p", { class: "tally" }, tally), table(candidates, passages, open)];
}

/** The same of a recorded exchange; null where nothing was explained. */
export function explainedOf({ query, explained = [] }) {
  if (!query || !explained.length) return null;
  const fused = ranks(explained, ({ score = 0 }) => score);
  const reranked = ranks(explained, ({ rerank_score: score = null }) => score);
  const candidates = explained.map((one) => ({
    ...one.chunk,
    chunk: one.chunk.id,
    dense: placed(one.dense_rank, one.dense_score),
    bm25: placed(one.bm25_rank, one.bm25_score),
    fused: placed(fused.get(one), one.score ?? 0),
    rerank: placed(reranked.get(one), one.rerank_score),
    fate: one.fate ?? "too far down",
  }));
  return { query, candidates };
}

const placed = (rank, score) => (Number.isFinite(rank) && Number.isFinite(score) ? { rank, score } : null);

function ranks(candidates, scoreOf) {
  const judged = candidates.filter((one) => scoreOf(one) !== null);
  const order = judged.toSorted((a, b) => scoreOf(b) - scoreOf(a));
  return new Map(order.map((one, index) => [one, index + 1]));
}

/** What was searched for, as a list of terms: the wordings, the answer imagined, what it was narrowed to. */
export function searched({ texts = [], hypothetical, filter, narrowing }) {
  const only = Object.entries(filter ?? narrowing ?? {}).filter(([name]) => FILTERS[name]);
  const rows = [
    ["Searched for", texts],
    ["As if answered by", hypothetical ? [hypothetical] : []],
    ["Only", only.map(([name, value]) => FILTERS[name](value))],
  ].filter(([, lines]) => lines.length);
  return el(
    "dl",
    { class: "searched" },
    rows.map(([name, lines]) =>
      el(
        "div",
        {},
        el("dt", {}, name),
        lines.map((line) => el("dd", {}, line)),
      ),
    ),
  );
}

function table(candidates, passages, open) {
  const stages = STAGES.filter(([name]) => candidates.some((one) => one[name]));
  const places = new Map(candidates.map(({ chunk }, index) => [chunk, index + 1]));
  const lastKept = candidates.findLastIndex(({ fate }) => fate === "kept");
  const rows = candidates.map((one, index) => {
    const cells = stages.map(([name]) => place(one[name]));
    const row = el(
      "tr",
      { class: one.fate === "kept" ? "kept" : null },
      where(one, index + 1),
      cells,
      el("td", { class: "fate" }, fate(one, places, passages, open)),
    );
    row.hidden = index >= Math.max(FIRST, lastKept + 1);
    return row;
  });
  const region = el(
    "div",
    { class: "candidates", tabindex: "0", role: "region", "aria-label": "Candidates" },
    el("table", {}, el("thead", {}, headings(stages)), el("tbody", {}, rows)),
  );
  const hidden = rows.filter((row) => row.hidden);
  return el("div", {}, region, hidden.length ? showAll(rows, hidden, region) : null);
}

function headings(stages) {
  const heading = (name, what) => el("th", { scope: "col" }, name, el("small", {}, what));
  return el(
    "tr",
    {},
    el("th", { scope: "col" }, "Candidate"),
    stages.map(([, name, what]) => heading(name, what)),
    el("th", { scope: "col" }, "Outcome"),
  );
}

function where({ title, document: name, heading = [] }, number) {
  const path = heading.length ? el("small", {}, heading.join(" › ")) : null;
  return el(
    "th",
    { scope: "row", title: name },
    el(
      "div",
      {},
      el("span", { class: "number" }, String(number)),
      el("span", { class: "what" }, title || name, path),
    ),
  );
}

function place(found) {
  if (!found) return el("td", { class: "place" }, el("span", { class: "absent", title: "Not found" }, "–"));
  return el("td", { class: "place" }, el("b", {}, String(found.rank)), el("small", {}, digits(found.score)));
}

/** Scores of one stage differ in their third digit: three are shown, never as powers of ten. */
const digits = (score) =>
  Math.abs(score) >= 100 ? String(Math.round(score)) : Number(score.toPrecision(3)).toFixed(decimals(score));

const decimals = (score) => (Math.abs(score) >= 10 ? 1 : Math.abs(score) >= 1 ? 2 : 3);

function fate({ fate: name, ...one }, places, passages, open) {
  if (name === "kept") {
    const passage = passages.find((other) => holds(other, one));
    if (!passage) return "Kept, did not fit";
    const on = { click: () => open(passage) };
    return el("button", { type: "button", class: "chip", on }, icon("done"), `Passage ${passage.marker}`);
  }
  if (!name.startsWith(DOUBLE)) return name.charAt(0).toUpperCase() + name.slice(1);
  const first = places.get(name.slice(DOUBLE.length));
  return first ? `Same text as no.\u00a0${first}` : "Same text as another";
}

/** Whether a passage is this candidate, or was joined from it and its neighbours. */
const holds = (passage, { chunk, document: name, start, end }) =>
  (passage.chunk ?? passage.id) === chunk ||
  (passage.document === name && passage.start <= start && end <= passage.end);

function showAll(rows, hidden, region) {
  const on = {
    click: () => {
      for (const row of hidden) row.hidden = false;
      button.remove();
      region.focus();
    },
  };
  const button = el("button", { type: "button", class: "link", on }, `Show all ${rows.length}`);
  return button;
}
