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
    button.addEventListener("click", () => {
      const place = [...prose.querySelectorAll(`.marker[data-number="${number}"]`)].indexOf(button);
      open(passage, citationOf(rests().citations, number, place));
    });
    return el("sup", {}, "\u2060", button); // the joiner keeps a marker on the line of its sentence
  };
}
