// The conversation of this browser, kept across reloads.

const KEY = "tandem.chat";
const WANTED = { conversation: null, assistant: null, turns: [] };

/**
 * The kept conversation: `{conversation, assistant, turns}`. A turn is `{question, state, answer, passages,
 * tandem, exchange, degraded, error, rating}` with `state` asking, done, stopped or failed.
 */
export function kept() {
  const found = read();
  const turns = Array.isArray(found.turns)
    ? found.turns.filter((turn) => typeof turn?.question === "string")
    : [];
  return { ...WANTED, ...found, turns: turns.map(settled) };
}

/**
 * A new turn that waits for its answer; `opened`: its explanation is to be seen at once, `anew`: no answer that
 * was given before will do.
 */
export const newTurn = (question, { opened = false, anew = false } = {}) => ({
  question,
  opened,
  anew,
  state: "asking",
  answer: "",
  passages: [],
  tandem: null,
  exchange: null,
  degraded: [],
  error: null,
  rating: null,
});

/** Keep the conversation; where there is no room for all of it, its beginning is left out. */
export function keep(conversation) {
  for (let from = 0; from <= conversation.turns.length; from = 2 * from + 1) {
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...conversation, turns: conversation.turns.slice(from) }));
      return;
    } catch {
      // no room, or storage is switched off: the page works without
    }
  }
}

/** What one question's answer rests on, in the documents' order of mention: `{document, title, citations}`. */
export function documentsCited(citations) {
  const byDocument = new Map();
  for (const citation of citations) {
    const found = byDocument.get(citation.document) ?? {
      document: citation.document,
      title: citation.title,
      citations: [],
    };
    found.citations.push(citation);
    byDocument.set(citation.document, found);
  }
  return [...byDocument.values()];
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // never kept, or kept by something else
  }
}

/** An answer that was still running when the page went away has stopped with it. */
function settled(turn) {
  const whole = { ...newTurn(turn.question), ...turn };
  return whole.state === "asking" ? { ...whole, state: "stopped" } : whole;
}
