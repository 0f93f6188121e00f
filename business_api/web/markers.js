// The small numbers in an answer that open what it rests on.
import { el } from "./dom.js";
import { citationOf } from "./quotes.js";

/**
 * A `markerNode` (see inlineOf) for the answer shown in `prose`. `rests()` gives its `{passages, citations}` as
 * they are now; `open(passage, citation)` is called with the citation null while, or where, there is none.
 */
export function markerNodes(prose, rests, open) {
  return (number) => {
    const passage = rests().passages.find(({ marker }) => marker === number);
    if (!passage) return null;
    const label = `Passage ${number}: ${passage.title || passage.document}`;
    const attributes = {
      type: "button",
      class: "marker",
      "data-number": String(number),
      "aria-label": label,
      title: label,
    };
    const button = el("button", attributes, String(number));
    button.addEventListener("click", () => open(passage, citationAt(button, prose, rests().citations)));
    return el("sup", {}, "\u2060", button); // the joiner keeps a marker on the line of its sentence
  };
}

/** Show at each number in `prose` whether its passage supports the sentence, once that is known. */
export function markSupport(prose, citations) {
  for (const button of prose.querySelectorAll(".marker:not(.doubtful)")) {
    if (citationAt(button, prose, citations)?.supported !== false) continue;
    const label = `${button.title}, which does not support this`;
    button.classList.add("doubtful");
    button.append("?");
    button.title = label;
    button.setAttribute("aria-label", label);
  }
}

function citationAt(button, prose, citations) {
  const { number } = button.dataset;
  const place = [...prose.querySelectorAll(`.marker[data-number="${number}"]`)].indexOf(button);
  return citationOf(citations, Number(number), place);
}
