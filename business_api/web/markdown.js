// Shows Markdown as elements. Made of text nodes only: markup and scripts in an answer stay visible text.
import { copyButton, el } from "./dom.js";
import { blocksOf } from "./markdown_blocks.js";
import { inlineOf } from "./markdown_inline.js";

const shownBlocks = new WeakMap();

/**
 * Show `text` in `container`. Called again with a longer text it replaces only the blocks that changed, so a
 * selection or the focus in a finished block stays. `markerNode`: see inlineOf.
 */
export function showMarkdown(container, text, markerNode = () => null) {
  const before = shownBlocks.get(container) ?? [];
  const blocks = blocksOf(text);
  let same = 0;
  while (same < before.length && same < blocks.length && before[same] === blocks[same].raw) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...blocks.slice(same).map((block) => nodeOf(block, markerNode)));
  shownBlocks.set(
    container,
    blocks.map((block) => block.raw),
  );
}

const nodeOf = (block, markerNode) => NODES[block.kind](block, markerNode);

const NODES = {
  paragraph: ({ text }, markerNode) => el("p", {}, inlineOf(text, markerNode)),
  heading: ({ level, text }, markerNode) => el(`h${Math.min(level + 2, 6)}`, {}, inlineOf(text, markerNode)),
  rule: () => el("hr"),
  quote: ({ blocks }, markerNode) =>
    el(
      "blockquote",
      {},
      blocks.map((block) => nodeOf(block, markerNode)),
    ),
  code: codeNode,
  list: listNode,
  table: tableNode,
};

function codeNode({ language, text }) {
  const head = el(
    "div",
    { class: "code-head" },
    el("span", {}, language || "text"),
    copyButton("Copy code", () => text),
  );
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, el("code", {}, text)));
}

function listNode({ ordered, start, items }, markerNode) {
  const attributes = ordered && start !== 1 ? { start: String(start) } : {};
  return el(
    ordered ? "ol" : "ul",
    attributes,
    items.map((blocks) => el("li", {}, itemNodes(blocks, markerNode))),
  );
}

/** An item of one paragraph is shown without the paragraph's space around it. */
function itemNodes(blocks, markerNode) {
  return blocks.flatMap((block) =>
    block.kind === "paragraph" ? inlineOf(block.text, markerNode) : [nodeOf(block, markerNode)],
  );
}

function tableNode({ rows: [head, ...rows] }, markerNode) {
  const cells = (tag, row) => row.map((cell) => el(tag, {}, inlineOf(cell, markerNode)));
  const body = rows.map((row) => el("tr", {}, cells("td", row)));
  return el(
    "div",
    { class: "table", tabindex: "0" },
    el("table", {}, el("thead", {}, el("tr", {}, cells("th", head))), el("tbody", {}, body)),
  );
}
