// Where the time of an answer went: one bar a stage, each beginning where the one before ended.
import { el } from "./dom.js";
import { duration, stages } from "./words.js";

/** A small table with bars. `timings`: milliseconds by stage, with `total`. */
export function waterfall(timings) {
  const rows = stagesOf(timings);
  const whole = Math.max(
    timings.total ?? 0,
    rows.reduce((sum, row) => sum + row.ms, 0),
    0.001,
  );
  let begin = 0;
  const body = rows.map(({ name, ms }) => {
    const row = stageRow(name, ms, begin / whole, ms / whole);
    begin += ms;
    return row;
  });
  const total = el(
    "tr",
    { class: "whole" },
    el("th", { scope: "row" }, "Total"),
    el("td", {}),
    el("td", { class: "number" }, duration(timings.total)),
  );
  return el(
    "table",
    { class: "waterfall" },
    el("caption", { class: "unseen" }, "Time by stage"),
    el("tbody", {}, body, total),
  );
}

function stageRow(name, ms, begin, share) {
  const bar = el("span", { class: "bar" });
  // Set through the object model: the page's policy forbids style attributes.
  bar.style.setProperty("--begin", String(Math.min(begin, 1)));
  bar.style.setProperty("--share", String(Math.min(share, 1)));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "track" }, bar),
    el("td", { class: "number" }, duration(ms)),
  );
}

/** Known stages in their order, unknown ones after them, then what is left of the total. */
function stagesOf(timings) {
  const known = new Map(stages);
  const others = Object.keys(timings).filter((name) => name !== "total" && !known.has(name));
  const names = [...[...known.keys()].filter((name) => Number.isFinite(timings[name])), ...others];
  const rows = names.map((name) => ({ name: known.get(name) ?? name, ms: timings[name] }));
  const rest = (timings.total ?? 0) - rows.reduce((sum, row) => sum + row.ms, 0);
  return rest > 0.05
    ? [...rows, { name: known.get(names.includes("ttft") ? "rest" : "other"), ms: rest }]
    : rows;
}

/** Milliseconds from the question to the first words, or null. */
export function toFirstWords(timings) {
  if (!Number.isFinite(timings.ttft)) return null;
  const before = stages.map(([name]) => timings[name] ?? 0);
  return before.reduce((sum, ms) => sum + ms, 0);
}
