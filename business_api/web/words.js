// What the services' names mean, for a person.

const NOTES = {
  dense_unavailable: "Passages were found by their words only; the search by meaning was not available.",
  retrieval_unavailable:
    "The documents could not be searched. This answer comes from the language model alone.",
  passages_cut: "Not every passage found fitted into the model's context.",
  history_cut: "The beginning of this conversation no longer fitted into the model's context.",
  unknown_marker: "The model cited a passage that does not exist; that citation was removed.",
  condense_failed: "What was said before could not be worked into the question; its words were searched as they are.",
  rewording_failed: "The question was searched for in its own words only; others could not be found.",
  narrowing_failed: "Which documents the question is about could not be read from it; all were searched.",
  rerank_timeout: "Passages are in the order in which they were found; ranking them again took too long.",
  rerank_unavailable: "Passages are in the order in which they were found; they could not be ranked again.",
  low_confidence: "The passages may not answer this question. Read the answer with care.",
  extractive_answer:
    "The language model was not available. These are sentences of the documents, word for word.",
  resumed: "The language model stopped in the middle of this answer; it was continued from there.",
  fallback_model: "The usual language model was not available. Another one wrote this answer.",
  unsupported_citation: "The passages do not support every sentence that cited one.",
};

const OUTCOMES = {
  answered: "Answered",
  abstained: "No answer in the documents",
  refused: "Refused",
  failed: "Failed",
  abandoned: "Stopped by the caller",
};

const STAGES = {
  history: "Read conversation",
  cache: "Look for a kept answer",
  queue: "Wait for the model",
  condense: "Rewrite question",
  reword: "Find other words",
  narrow: "Choose documents",
  embed: "Embed question",
  search: "Search documents",
  rerank: "Rank passages",
  prompt: "Write prompt",
  ttft: "First token",
  rest: "Write answer",
  other: "Everything else",
};

const SETTERS = {
  model: "cited by the model",
  match: "matched by its words",
  extract: "taken from the document, word for word",
};

const FAILURES = {
  overloaded: ["Many questions at once", "Every place is taken. It moves on quickly."],
  retrieval_unavailable: ["The documents cannot be searched", "The search is not available right now."],
  upstream_unavailable: ["The language model cannot be reached", "It may be starting. Nothing was lost."],
  upstream_timeout: ["The language model took too long", "It may be busy with other answers."],
  rate_limit_exceeded: ["Too many questions in a short time", "Wait a moment before the next one."],
  context_length_exceeded: ["This is too long for the model", "Shorten the question, or begin a new chat."],
  unreachable: ["Tandem cannot be reached", "Is the service running, and this machine online?"],
  broken_off: ["The answer broke off", "The connection ended before the answer was complete."],
};

/** One sentence for a name of `degraded`. */
export const noteOf = (name) => NOTES[name] ?? `Something was missing for this answer: ${name}.`;

/** Who tied a sentence to its passage, by a citation's `by`. */
export const setterOf = (by) => SETTERS[by] ?? by;

export const outcomeOf = (name) => OUTCOMES[name] ?? name ?? "Running";

/** Which LLM servers were asked, and how each attempt went: `gpu-1 broke_off, gpu-2 answered`. */
export const attemptsOf = (attempts) =>
  attempts.map(({ replica, outcome }) => `${replica} ${outcome}`).join(", ");

/** Stages of a request in their order, with what they are called. */
export const stages = Object.entries(STAGES);

/** `[headline, what it means]` of an error, by its code, else by its HTTP status; the second may be empty. */
export function failureOf(code, status) {
  if (FAILURES[code]) return FAILURES[code];
  if (status === 401) return ["An API key is needed", "Ask whoever runs this service for one."];
  if (status === 404) return ["Not found", ""];
  if (status >= 400 && status < 500) return ["This question was not accepted", ""];
  return ["Something went wrong", ""];
}

/** A text as a preview, without the signs of Markdown. */
export const unmarked = (text) => text.replace(/[*`#>]+/g, "").trim();

/** A service's lower-case message as a sentence. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Milliseconds as a person reads them: `0.4 ms`, `38 ms`, `1.24 s`. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** Seconds as a person reads them: `40 s ago`, `12 min ago`. */
export const ago = (seconds) =>
  seconds < 100 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`;

/** A probability as a person reads it: `12 %`, and never a certainty. */
export function percent(probability) {
  if (probability < 0.01) return "below 1 %";
  return probability > 0.99 ? "above 99 %" : `${Math.round(probability * 100)} %`;
}

/** `1 passage`, `3 passages`. */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
