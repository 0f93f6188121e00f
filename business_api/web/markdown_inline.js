// Turns a line of Markdown into nodes: code, bold, italic, links, markers. Everything else stays text.
import { el } from "./dom.js";

const MARKER = /\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?!\()/y;
const LINK = /!?\[([^\[\]\n]{1,400})\]\(([^\s()<>]{1,1000})\)/y;
const ADDRESS = /https?:\/\/[^\s<>"'`|\\^{}[\]]{1,1000}/y;
const TRAILING = /[.,:;!?)*_]+$/;
const SPECIAL = /[`*_[!h\\\n]/g;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const SAFE = new Set(["http:", "https:", "mailto:"]);
const DEEPEST = 6;

/**
 * Nodes of `text`. `markerNode(number)` gives the node for a marker, or null where no passage has that number:
 * it stays text. Time grows with the length of the text, whatever stands in it.
 */
export function inlineOf(text, markerNode, depth = 0) {
  const reading = { text, at: 0, plain: 0, nodes: [], markerNode, depth, absent: new Set() };
  while (reading.at < text.length) {
    SPECIAL.lastIndex = reading.at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    reading.at = found.index;
    const [nodes, end] = READERS[found[0]](reading) ?? [null, reading.at + 1];
    if (nodes) take(reading, nodes, end);
    reading.at = end;
  }
  return [...reading.nodes, text.slice(reading.plain)].filter((node) => node !== "");
}

const READERS = {
  "`": code,
  "*": emphasis,
  _: emphasis,
  "[": (reading) => markers(reading) ?? link(reading),
  "!": link,
  h: address,
  "\\": escaped,
  "\n": lineBreak,
};

function take(reading, nodes, end) {
  const before = reading.text.slice(reading.plain, reading.at);
  const isMarker = reading.text[reading.at] === "[" && nodes[0].localName !== "a";
  reading.nodes.push(isMarker ? before.trimEnd() : before, ...nodes);
  reading.plain = end;
}

/** Where `sign` comes next, or -1; that it does not come any more is looked up once. */
function next(reading, sign, from) {
  if (reading.absent.has(sign)) return -1;
  const at = reading.text.indexOf(sign, from);
  if (at < 0) reading.absent.add(sign);
  return at;
}

function code(reading) {
  const fence = reading.text.startsWith("``", reading.at) ? "``" : "`";
  const begin = reading.at + fence.length;
  const end = next(reading, fence, begin);
  if (end <= begin) return null;
  return [[el("code", {}, reading.text.slice(begin, end).trim() || " ")], end + fence.length];
}

function emphasis(reading) {
  const { text, at } = reading;
  const sign = text[at + 1] === text[at] ? text[at].repeat(2) : text[at];
  const begin = at + sign.length;
  const opens = /\S/.test(text[begin] ?? " ") && !(sign[0] === "_" && WORD.test(text[at - 1] ?? ""));
  if (!opens || reading.depth >= DEEPEST) return null;
  const end = closing(reading, sign, begin);
  if (end <= begin) return null;
  const inner = inlineOf(text.slice(begin, end), reading.markerNode, reading.depth + 1);
  return [[el(sign.length === 2 ? "strong" : "em", {}, ...inner)], end + sign.length];
}

function closing(reading, sign, begin) {
  const { text } = reading;
  let end = next(reading, sign, begin);
  const bold = end >= 0 && sign.length === 1 && text[end + 1] === sign;
  if (bold) end = text.indexOf(sign, skip(text, end, sign)); // `*a **b** c*`
  while (end >= 0 && sign.length === 2 && text[end + 2] === sign[0]) end += 1; // `***both***`
  if (end < 0 || /\s/.test(text[end - 1])) return -1;
  return sign[0] === "_" && WORD.test(text[end + sign.length] ?? "") ? -1 : end;
}

function skip(text, at, sign) {
  const end = text.indexOf(sign.repeat(2), at + 2);
  return end < 0 ? text.length : end + 2;
}

function markers(reading) {
  MARKER.lastIndex = reading.at;
  const found = MARKER.exec(reading.text);
  if (!found) return null;
  const nodes = found[1].split(",").map((number) => reading.markerNode(Number(number)));
  return nodes.every(Boolean) ? [nodes, MARKER.lastIndex] : null;
}

/** A link; an image becomes a link to it, for nothing is loaded from elsewhere because an answer says so. */
function link(reading) {
  LINK.lastIndex = reading.at;
  const found = LINK.exec(reading.text);
  if (!found || !isSafe(found[2])) return null;
  return [[anchor(found[2], found[1])], LINK.lastIndex];
}

function address(reading) {
  ADDRESS.lastIndex = reading.at;
  const found = ADDRESS.exec(reading.text);
  if (!found) return null;
  const target = found[0].replace(TRAILING, "");
  return isSafe(target) ? [[anchor(target, target)], reading.at + target.length] : null;
}

function anchor(target, text) {
  return el("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, text);
}

function isSafe(target) {
  try {
    return SAFE.has(new URL(target).protocol);
  } catch {
    return false; // not an absolute address
  }
}

function escaped(reading) {
  const sign = reading.text[reading.at + 1] ?? "";
  return PUNCTUATION.test(sign) ? [[sign], reading.at + 2] : null;
}

function lineBreak(reading) {
  const hard = /(?: {2}|\\)$/.test(reading.text.slice(Math.max(0, reading.at - 2), reading.at));
  return hard ? [[el("br")], reading.at + 1] : null;
}
