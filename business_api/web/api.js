// Calls to the business API. Every failure is a Failure, with words for a person.
import { askForKey, currentKey } from "./key.js";
import { serverEvents } from "./sse.js";
import { failureOf } from "./words.js";

/**
 * A call that did not work: `title`, `advice` and `message` to show, `retryAfter` in seconds, or null;
 * `request` is its id where there is one, `tandem` is there when the answer had begun.
 */
export class Failure extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null, request = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.request = request;
    [this.title, this.advice] = failureOf(code, status);
  }

  /** Whether the same question may work later. */
  get retryable() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

/** Assistants, the default one first: `[{id, tandem: {description, retrieval, suggestions}}]`. */
export const models = async () => (await json("/v1/models")).data;

/** One page of exchanges, newest first: `{exchanges, next}`. Empty values of `query` are left out. */
export function exchanges(query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return json(`/exchanges?${new URLSearchParams(given)}`);
}

export const exchange = (id) => json(`/exchanges/${encodeURIComponent(id)}`);

/** Rate an exchange: `{rating: "up" | "down", comment?}`. */
export const rate = (id, feedback) => call(`/exchanges/${encodeURIComponent(id)}/feedback`, posted(feedback));

/** Ask; yields `{event, ...fields}` of the answer. A failure before or within the stream is thrown. */
export async function* ask(question, signal) {
  const response = await call("/chat", { ...posted({ ...question, stream: true }), signal });
  let ended = false;
  try {
    for await (const { event, data } of serverEvents(response.body)) {
      const fields = JSON.parse(data);
      if (event === "error") throw brokenOff(fields);
      ended ||= event === "answer";
      yield { event, ...fields };
    }
  } catch (error) {
    throw asFailure(error, "broken_off");
  }
  if (!ended) throw new Failure("", { code: "broken_off" });
}

const posted = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

const json = async (path) => (await call(path, { headers: { Accept: "application/json" } })).json();

async function call(path, options) {
  const response = await send(path, options);
  if (response.ok) return response;
  if (response.status === 401 && (await askForKey())) return call(path, options);
  const envelope = await response.json().catch(() => null);
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  const request = response.headers.get("X-Request-Id");
  throw readFailure(envelope, response.status, { retryAfter: Number.isFinite(wait) ? wait : null, request });
}

async function send(path, options) {
  const key = currentKey();
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  try {
    // The page and its JSON share an address: the one must never be served from the other's cache entry.
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw asFailure(error, "unreachable");
  }
}

function readFailure(envelope, status, headers = {}) {
  const error = envelope?.error ?? {};
  const message = typeof error.message === "string" ? error.message : `The service answered ${status}.`;
  return new Failure(message, { status, code: error.code ?? null, ...headers });
}

function brokenOff({ tandem, ...envelope }) {
  return Object.assign(readFailure(envelope, 500, { request: tandem?.exchange }), { tandem });
}

function asFailure(error, code) {
  const ours = error instanceof Failure || error.name === "AbortError";
  return ours ? error : new Failure("", { code });
}
