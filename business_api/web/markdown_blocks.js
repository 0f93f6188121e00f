// Splits Markdown into blocks, line by line. What an answer may hold is untrusted; this only cuts text.
//
// A block is {kind, raw, ...}: paragraph, heading (level), code (language, closed), list (ordered, start,
// items: blocks each), quote (blocks), table (rows of cells), rule. `raw` tells whether a block has changed.

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const ITEM = /^( {0,8})([-*+]|\d{1,9}[.)])(?: +|$)(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DIVIDER = /^\|?(?: *:?-+:? *\|)+(?: *:?-+:?)?$/;
const DEEPEST = 5;

/** Blocks of a text. */
export function blocksOf(text, depth = 0) {
  return blocksOfLines(text.replace(/\r\n?/g, "\n").split("\n"), depth);
}

function blocksOfLines(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth);
    blocks.push({ ...block, raw: lines.slice(at, next).join("\n") });
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const heading = HEADING.exec(line);
  if (FENCE.test(line)) return codeAt(lines, at);
  if (heading)
    return [{ kind: "heading", level: heading[1].length, text: withoutHashes(heading[2]) }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quoteAt(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return listAt(lines, at, depth);
  if (tableBegins(lines, at)) return tableAt(lines, at);
  return paragraphAt(lines, at, depth);
}

const withoutHashes = (text) =>
  text
    .trimEnd()
    .replace(/(?:^|\s)#+$/, "")
    .trimEnd();

function codeAt(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], fence)) end += 1;
  const closed = end < lines.length;
  return [
    { kind: "code", language, closed, text: lines.slice(at + 1, end).join("\n") },
    end + (closed ? 1 : 0),
  ];
}

const closes = (line, fence) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");

function quoteAt(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => QUOTE.exec(line)[1]);
  return [{ kind: "quote", blocks: blocksOfLines(inner, depth + 1) }, end];
}

function listAt(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    const sameList = item && item[1].length <= first[1].length + 1 && /\d/.test(item[2]) === ordered;
    if (sameList && !RULE.test(lines[end])) items.push([item[3]]);
    else if (belongsToItem(lines, end, first[1].length)) items.at(-1).push(withoutIndent(lines[end], first));
    else break;
    end += 1;
  }
  const start = ordered ? Number.parseInt(first[2], 10) : 1;
  return [{ kind: "list", ordered, start, items: items.map((item) => blocksOfLines(item, depth + 1)) }, end];
}

/** An indented line, or a blank one before an indented line or the next item, goes on with the item above. */
function belongsToItem(lines, at, indent) {
  const line = lines[at];
  if (line.trim())
    return /^ */.exec(line)[0].length > indent + 1 || (lines[at - 1].trim() && !startsBlock(lines, at));
  const next = lines[at + 1] ?? "";
  return next.trim() !== "" && (/^ */.exec(next)[0].length > indent + 1 || ITEM.test(next));
}

const withoutIndent = (line, first) =>
  line.slice(Math.min(/^ */.exec(line)[0].length, first[1].length + first[2].length + 1));

function startsBlock(lines, at) {
  const line = lines[at];
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(line)) || tableBegins(lines, at);
}

const tableBegins = (lines, at) => lines[at].includes("|") && DIVIDER.test((lines[at + 1] ?? "").trim());

function tableAt(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const rows = [lines[at], ...lines.slice(at + 2, end)].map(cellsOf);
  return [{ kind: "table", rows }, end];
}

const cellsOf = (line) =>
  line
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|")
    .map((cell) => cell.trim());

function paragraphAt(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !(depth < DEEPEST && startsBlock(lines, end))) end += 1;
  return [{ kind: "paragraph", text: lines.slice(at, end).join("\n") }, end];
}
