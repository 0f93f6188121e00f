// The exchanges page: a list, newest first, and the exchange that the address names.
import { exchange, exchanges } from "./api.js";
import { errorCard } from "./cards.js";
import { el, say } from "./dom.js";
import { exchangeView } from "./exchange_view.js";
import { counted, duration, outcomeOf, unmarked } from "./words.js";

const PAGE = "50";
const filter = document.getElementById("filter");
const list = document.getElementById("list");
const listEnd = document.getElementById("list-end");
const more = document.getElementById("more");
const detail = document.getElementById("exchange");
let next = null;
let listing = 0; // counts loads, so that a slow one never overwrites a newer one
let opening = 0;

const openId = () => decodeURIComponent(location.pathname.replace(/^\/exchanges\/?/, "").replace(/\/$/, ""));
const addressOf = (id) => `/exchanges${id ? `/${encodeURIComponent(id)}` : ""}${location.search}`;
const filters = () => Object.fromEntries(new FormData(filter));

async function load({ onward = false } = {}) {
  const mine = (listing += 1);
  more.hidden = true;
  listEnd.replaceChildren(el("p", { class: "quiet-line" }, "Loading"));
  try {
    const page = await exchanges({ limit: PAGE, before: onward ? next : null, ...filters() });
    if (mine !== listing) return;
    next = page.next ?? null;
    const rows = page.exchanges.map(rowOf);
    if (onward) list.append(...rows);
    else list.replaceChildren(...rows);
    markOpen();
    more.hidden = next === null;
    listEnd.replaceChildren(list.children.length ? "" : el("p", { class: "quiet-line" }, nothing()));
    say(`${counted(list.children.length, "exchange")} shown`);
  } catch (error) {
    if (mine === listing) listEnd.replaceChildren(failed(error, () => load({ onward })));
  }
}

const nothing = () =>
  location.search ? "No exchange matches." : "No exchanges yet. Ask something on the chat page.";

function rowOf({ id, at, outcome, question, answer, degraded = [], timings_ms: timings = {} }) {
  const when = new Date(at * 1000);
  const link = el(
    "a",
    { href: addressOf(id), "data-id": id },
    el(
      "span",
      { class: "row-head" },
      el("span", {
        class: `dot ${outcome}`,
        role: "img",
        "aria-label": outcomeOf(outcome),
        title: outcomeOf(outcome),
      }),
      el("strong", {}, question || "(no question)"),
    ),
    el("span", { class: "preview" }, unmarked(answer ?? "") || outcomeOf(outcome)),
    el(
      "span",
      { class: "row-foot" },
      el("time", { datetime: when.toISOString(), title: when.toLocaleString() }, shortTime(when)),
      Number.isFinite(timings.total) ? el("span", {}, duration(timings.total)) : null,
      degraded.length
        ? el("span", { class: "degraded" }, degraded.length === 1 ? "1 note" : `${degraded.length} notes`)
        : null,
    ),
  );
  return el("li", {}, link);
}

function shortTime(when) {
  const today = when.toDateString() === new Date().toDateString();
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return today ? time : `${when.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

async function showOpen({ focus = false } = {}) {
  const id = openId();
  const mine = (opening += 1);
  document.body.classList.toggle("opened", id !== "");
  markOpen();
  if (!id) {
    detail.replaceChildren(
      el("p", { class: "empty" }, "Choose an exchange to see its passages, prompt and timings."),
    );
    return;
  }
  try {
    const found = await exchange(id);
    if (mine === opening) detail.replaceChildren(back(), ...exchangeView(found));
  } catch (error) {
    if (mine === opening) detail.replaceChildren(back(), failed(error, showOpen));
  }
  if (mine !== opening) return;
  detail.scrollTop = 0;
  if (focus) detail.focus();
}

function back() {
  const link = el("a", { class: "back", href: addressOf("") }, "All exchanges");
  link.dataset.id = "";
  return link;
}

function failed(
  { title = "Something went wrong", advice, message, request, retryable = true, retryAfter },
  retry,
) {
  const retryAt = retryAfter ? Date.now() + retryAfter * 1000 : null;
  return errorCard({ title, advice, message, request, retryable, retryAt }, { retry });
}

function markOpen() {
  const id = openId();
  for (const link of list.querySelectorAll("a")) {
    if (link.dataset.id === id && id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function applyFilters() {
  const given = Object.entries(filters()).filter(([, value]) => value);
  const query = new URLSearchParams(given).toString();
  history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}`);
  load();
}

let typing = 0;
document.getElementById("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(applyFilters, 250);
});
document.getElementById("outcome").addEventListener("change", applyFilters);
filter.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  applyFilters();
});
more.addEventListener("click", () => load({ onward: true }));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-id]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  history.pushState(null, "", addressOf(link.dataset.id));
  showOpen({ focus: true });
});
addEventListener("popstate", () => showOpen());
for (const [name, value] of new URLSearchParams(location.search)) {
  if (filter.elements[name]) filter.elements[name].value = value;
}
load();
showOpen();
