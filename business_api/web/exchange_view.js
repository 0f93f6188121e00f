// One exchange, opened: what was asked, found, sent to the model and answered, and how long each took.
import { abstention } from "./abstention.js";
import { explainedOf, explainView, searched } from "./candidates.js";
import { notesOf } from "./cards.js";
import { copyButton, el, icon } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { markerNodes, markSupport } from "./markers.js";
import { quotedText } from "./quotes.js";
import { waterfall } from "./waterfall.js";
import { ago, attemptsOf, counted, failureOf, outcomeOf, percent, sentence, setterOf } from "./words.js";

const HEADLINE = 160;

/** Nodes for a recorded exchange as `GET /exchanges/{id}` gives it. Parts that it never reached are left out. */
export function exchangeView(exchange) {
  const { citations = [], error, versions = {}, timings_ms: timings = {} } = exchange;
  const passages = flat(
    exchange.prompt?.passages?.length ? exchange.prompt.passages : (exchange.passages ?? []),
  );
  return [
    head(exchange),
    ...notesOf(exchange),
    error ? failure(error) : null,
    asked(exchange.question),
    ...answered(exchange, passages),
    citations.length ? section("Citations", citationList(citations)) : null,
    search(exchange, passages),
    Object.keys(timings).length ? section("Time", waterfall(timings)) : null,
    passages.length
      ? section(
          counted(passages.length, "passage"),
          passages.map((passage) => passageCard(passage, citations)),
        )
      : null,
    exchange.prompt ? section("Prompt", prompt(exchange.prompt)) : null,
    section("Versions and facts", facts({ ...versions, ...factsOf(exchange) })),
  ].filter(Boolean);
}

function answered(exchange, passages) {
  const { answer: text, citations = [], outcome, judgement } = exchange;
  const open = (passage) => goTo(passage, citations, null);
  if (outcome === "abstained") {
    return [abstention({ text: text ?? "", answerable: judgement?.probability, passages }, open)];
  }
  const copy = copyButton("Copy answer", () => text);
  return text ? [section("Answer", answer(exchange, passages), copy)] : [];
}

/** What was searched for, and the candidates where they were asked for; or null. */
function search(exchange, passages) {
  if (!exchange.query) return null;
  const open = (passage) => goTo(passage, exchange.citations ?? [], null);
  const explain = explainedOf(exchange);
  return section(
    "Search",
    el("div", { class: "search" }, explain ? explainView(explain, passages, open) : searched(exchange.query)),
  );
}

/** Passages as the chat page has them: the chunk's fields, with marker and score. */
const flat = (passages) =>
  passages.map(({ chunk, score }, index) => ({ ...chunk, score, marker: index + 1 }));

function head(exchange) {
  const { id, at, outcome, question, cached } = exchange;
  const when = new Date(at * 1000);
  return el(
    "header",
    { class: "opened-head" },
    el("h2", {}, headline(lastQuestion(question))),
    el(
      "p",
      {},
      el("span", { class: `badge ${outcome}` }, outcomeOf(outcome)),
      el("time", { datetime: when.toISOString() }, when.toLocaleString()),
      el("span", {}, question?.assistant ?? ""),
      cached ? givenBefore(cached) : null,
      el(
        "span",
        { class: "id" },
        el("code", {}, id),
        copyButton("Copy id", () => id),
        el(
          "span",
          { class: "json" },
          copyButton("Copy as JSON", () => JSON.stringify(exchange, null, 2)),
          "JSON",
        ),
      ),
    ),
  );
}

function givenBefore({ exchange, age_s: age }) {
  const first = el("a", { href: `/exchanges/${encodeURIComponent(exchange)}` }, ago(age));
  return el("span", {}, "given before, ", first);
}

const lastQuestion = (question) =>
  (question?.messages ?? []).findLast(({ role }) => role === "user")?.content ?? "";

const headline = (text) => (text.length > HEADLINE ? `${text.slice(0, HEADLINE)}…` : text || "(no question)");

function section(title, content, ...tools) {
  return el("section", {}, el("div", { class: "section-head" }, el("h3", {}, title), ...tools), content);
}

function failure({ message, code }) {
  return el(
    "div",
    { class: "card error" },
    icon("alert"),
    el(
      "div",
      {},
      el("h3", {}, failureOf(code)[0]),
      el("p", {}, sentence(message ?? "")),
      el("p", { class: "said" }, code ?? ""),
    ),
  );
}

/** The conversation before the question, and the question itself where the headline cuts it short; or null. */
function asked(question) {
  const messages = question?.messages ?? [];
  const earlier = messages.slice(0, -1);
  const text = lastQuestion(question);
  const whole = text.length > HEADLINE ? el("p", { class: "asked" }, text) : null;
  const before = el("summary", {}, counted(earlier.length, "earlier message"));
  const shown = [whole, earlier.length ? el("details", {}, before, messageList(earlier)) : null].filter(
    Boolean,
  );
  return shown.length ? section("Question", shown) : null;
}

function answer({ answer: text, citations = [] }, passages) {
  const prose = el("div", { class: "prose" });
  const open = (passage, chosen) => goTo(passage, citations, chosen);
  showMarkdown(
    prose,
    text,
    markerNodes(prose, () => ({ passages, citations }), open),
  );
  markSupport(prose, citations);
  return prose;
}

function goTo(passage, citations, chosen) {
  const card = document.getElementById(`passage-${passage.marker}`);
  card.open = true;
  card.querySelector(".passage").replaceChildren(...quotedText(passage, own(passage, citations), chosen));
  (card.querySelector("mark.chosen") ?? card).scrollIntoView({ block: "center" });
  card.querySelector("summary").focus({ preventScroll: true });
}

const own = ({ marker }, citations) => citations.filter((citation) => citation.marker === marker);

function citationList(citations) {
  const items = citations.map(({ marker, title, document: name, quote, by, supported }) =>
    el(
      "li",
      { value: String(marker) },
      el("q", {}, quote),
      el(
        "span",
        { class: "by" },
        `${title || name} · ${setterOf(by)}`,
        supported === false ? el("span", { class: "doubt" }, " · does not support the sentence") : null,
      ),
    ),
  );
  return el("ol", { class: "citations" }, items);
}

function passageCard(passage, citations) {
  const { marker, title, document: name, heading = [], score, start, end } = passage;
  const where = [name, ...heading].join(" › ");
  return el(
    "details",
    { class: "passage-card", id: `passage-${marker}`, open: own(passage, citations).length > 0 },
    el(
      "summary",
      {},
      el("span", { class: "number" }, String(marker)),
      el("span", {}, title || name),
      Number.isFinite(score) ? el("span", { class: "score" }, score.toFixed(3)) : null,
    ),
    el("p", { class: "where" }, where, ` · characters ${start}–${end}`),
    el("div", { class: "passage" }, quotedText(passage, own(passage, citations))),
  );
}

function prompt({ template, max_tokens: most, messages = [] }) {
  const about = [template, most ? `at most ${most} tokens` : null].filter(Boolean).join(" · ");
  return el(
    "details",
    {},
    el("summary", {}, `${counted(messages.length, "message")}${about ? `, ${about}` : ""}`),
    messageList(messages),
  );
}

function messageList(messages) {
  return el(
    "div",
    { class: "messages" },
    messages.map(({ role, content, tool_calls: calls }) =>
      el(
        "div",
        {},
        el("h4", {}, role),
        el("pre", { tabindex: "0" }, content ?? JSON.stringify(calls ?? "", null, 2)),
      ),
    ),
  );
}

function factsOf({ finish_reason: reason, usage, question, contract, judgement, attempts = [] }) {
  const tokens = usage ? `${usage.prompt_tokens} read, ${usage.completion_tokens} written` : null;
  const all = {
    answerable: judgement
      ? `${percent(judgement.probability)}, held to be so from ${percent(judgement.threshold)}`
      : null,
    servers: attemptsOf(attempts),
    "finish reason": reason,
    tokens,
    conversation: question?.conversation,
    key: question?.key,
    tenant: question?.tenant,
    contract,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value));
}

function facts(values) {
  const rows = Object.entries(values).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, String(value))),
  );
  return el("dl", { class: "facts" }, rows);
}
