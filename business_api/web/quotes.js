// Where a quote stands in its passage.
import { el } from "./dom.js";

/**
 * Nodes of a passage's text with its quotes marked; `chosen` is the citation that was opened, or null.
 * `passage.start` and the citations' `start`, `end` count characters (code points) of the document.
 */
export function quotedText(passage, citations, chosen = null) {
  const letters = Array.from(passage.text);
  const strong = chosen ? [spanOf(letters, passage, chosen)].filter(Boolean) : [];
  const weak = citations.map((citation) => spanOf(letters, passage, citation)).filter(Boolean);
  const edges = [0, letters.length, ...[...strong, ...weak].flat()];
  const cuts = [...new Set(edges)].sort((a, b) => a - b);
  return cuts.slice(1).map((end, index) => {
    const begin = cuts[index];
    const text = letters.slice(begin, end).join("");
    const within = (span) => span[0] <= begin && end <= span[1];
    if (strong.some(within)) return el("mark", { class: "chosen" }, text);
    return weak.some(within) ? el("mark", {}, text) : text;
  });
}

/** The citation's [start, end] in the passage; looked for by its words should the offsets not fit. */
function spanOf(letters, passage, { start, end, quote }) {
  const span = [start - passage.start, end - passage.start];
  if (span[0] >= 0 && letters.slice(...span).join("") === quote) return span;
  const at = quote ? passage.text.indexOf(quote) : -1;
  if (at < 0) return null;
  const begin = Array.from(passage.text.slice(0, at)).length;
  return [begin, begin + Array.from(quote).length];
}

/**
 * The citation of the marker that comes `place`-th (from 0) among the markers of this number in the answer, or
 * null. A sentence that repeats a marker has one citation for it, so the last one stands for what is left.
 */
export function citationOf(citations, number, place) {
  const own = citations.filter((citation) => citation.marker === number);
  return own[Math.min(place, own.length - 1)] ?? null;
}
