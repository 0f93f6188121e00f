// Makes elements. Text always goes in as text nodes: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Line drawings on a 24 x 24 grid, as path data. */
const PATHS = {
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  done: "M5 12.5l4.5 4.5L19 7.5",
  up: "M7 11v9H4v-9zM7 11l4-7c1.7 0 2.6 1.2 2.2 2.8L12.5 10H18c1.6 0 2.5 1.3 2.1 2.8l-1.3 5.4c-.3 1.1-1.2 1.8-2.3 1.8H7",
  down: "M17 13V4h3v9zM17 13l-4 7c-1.7 0-2.6-1.2-2.2-2.8l.7-3.2H6c-1.6 0-2.5-1.3-2.1-2.8l1.3-5.4C5.5 4.7 6.4 4 7.5 4H17",
  close: "M6 6l12 12M18 6L6 18",
  retry: "M20 11a8 8 0 1 0-2.3 5.7M20 5v6h-6",
  alert: "M12 8v5M12 16.5v.1M12 3.5l9 16H3z",
  note: "M12 11v5M12 8v.1M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0z",
  document: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  back: "M14 6l-6 6 6 6",
  nothing: "M10.5 17.5a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM15.5 15.5L21 21M8 8l5 5M13 8l-5 5",
};

/**
 * An element. `attributes`: `on` is a map of event listeners, `null` and `false` leave an attribute out,
 * `true` sets it empty. `children`: nodes and strings; null and false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** A decorative drawing of PATHS; what it stands for is said by the button around it. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    drawing.setAttribute(key, value);
  }
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", PATHS[name]);
  drawing.append(line);
  return drawing;
}

/** A button with a drawing and a name that is read out and shown as a tooltip. */
export function iconButton(name, label, click, attributes = {}) {
  const on = { click };
  return el(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, on, ...attributes },
    icon(name),
  );
}

/** A button that copies `text()` and shows for two seconds that it did. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const copied = await copyText(text());
    button.replaceChildren(icon(copied ? "done" : "alert"));
    say(copied ? "Copied" : "Could not copy");
    setTimeout(() => button.replaceChildren(icon("copy")), 2000);
  });
  return button;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or not a secure origin
  }
}

/** Tell a screen reader, through the page's one status line. */
export function say(text) {
  const line = document.getElementById("status");
  if (line) line.textContent = text;
}
