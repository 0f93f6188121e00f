// One turn of the conversation on the page: the question, its answer as it grows, and what belongs to it.
import { abstention } from "./abstention.js";
import { errorCard, notesOf } from "./cards.js";
import { el } from "./dom.js";
import { foot } from "./foot.js";
import { showMarkdown } from "./markdown.js";
import { markerNodes, markSupport } from "./markers.js";
import { openPassage } from "./panel.js";
import { counted } from "./words.js";

/** `{element, update}`: call `update()` when the turn has changed. `on`: `{retry, edit, rated}`. */
export function turnView(turn, on) {
  const progress = el("p", { class: "progress" });
  const prose = el("div", { class: "prose", "aria-live": "polite" });
  const after = el("div", { class: "after" });
  const answer = el("section", { class: "answer", "aria-label": "Answer" }, progress, prose, after);
  const element = el(
    "article",
    { class: "turn" },
    el("div", { class: "question" }, el("h2", { class: "unseen" }, "You asked"), el("p", {}, turn.question)),
    answer,
  );
  const rests = () => ({ passages: turn.passages, citations: turn.tandem?.citations ?? [] });
  const open = (number, chosen) => openPassage({ ...rests(), number, chosen });
  const markerNode = markerNodes(prose, rests, ({ marker }, chosen) => open(marker, chosen));

  function update() {
    const running = turn.state === "asking";
    const abstained = turn.tandem?.outcome === "abstained";
    answer.dataset.state = turn.state;
    prose.setAttribute("aria-busy", String(running));
    showProgress(progress, turn);
    showMarkdown(prose, turn.answer, markerNode);
    markSupport(prose, rests().citations);
    prose.hidden = abstained;
    after.replaceChildren(
      ...(abstained ? [nothing(turn, open)] : []),
      ...notes(turn),
      ...(running ? [] : ending(turn, { ...on, open })),
    );
  }

  update();
  return { element, update };
}

const nothing = ({ answer, tandem, passages }, open) =>
  abstention({ text: answer, answerable: tandem.answerable, passages }, ({ marker }) => open(marker, null));

/** A failed turn without a word of an answer has only its card. */
function ending(turn, on) {
  const card = turn.error ? [errorCard(turn.error, on)] : [];
  const began = turn.answer || turn.tandem || turn.state === "stopped";
  return began ? [...card, foot(turn, on)] : card;
}

function notes(turn) {
  const tandem = turn.tandem ?? {};
  return notesOf({
    ...tandem,
    degraded: tandem.degraded ?? turn.degraded,
    state: turn.state,
    finish_reason: turn.finish_reason,
  });
}

function showProgress(progress, { state, answer, exchange, passages }) {
  progress.hidden = state !== "asking" || answer !== "";
  const reading = passages.length ? `Reading ${counted(passages.length, "passage")}` : "Writing";
  const text = exchange ? reading : "Searching the documents";
  if (!progress.hidden && progress.textContent !== text) {
    progress.replaceChildren(
      el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")),
      text,
    );
  }
}
