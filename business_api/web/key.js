// The API key: asked for when a call is answered 401, kept for this tab only.
import { el } from "./dom.js";

const KEY = "tandem.key";
let asking = null;

/** The key of this tab, or null. */
export function currentKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Ask for a key; several callers share one dialog. Resolves to whether there is a new one. */
export function askForKey() {
  asking ??= shown(currentKey() !== null).finally(() => (asking = null));
  return asking;
}

function shown(refused) {
  const input = el("input", {
    type: "password",
    id: "api-key",
    autocomplete: "off",
    required: true,
    pattern: "[\\x21-\\x7e]+",
    title: "Letters, digits and signs without spaces",
  });
  const note = refused
    ? "The key was not accepted. It may be mistyped or revoked."
    : "This service asks for an API key. It is kept until this tab is closed.";
  const cancel = el(
    "button",
    { type: "button", class: "button", on: { click: () => dialog.close() } },
    "Not now",
  );
  const use = el("button", { type: "submit", class: "button primary" }, "Use this key");
  const form = el(
    "form",
    { class: "key-form" },
    el("h2", {}, "API key"),
    el("p", {}, note),
    el("label", { for: "api-key" }, "Key"),
    input,
    el("div", { class: "row end" }, cancel, use),
  );
  const dialog = el("dialog", { class: "modal", "aria-label": "API key" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let given = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      given = keep(input.value.trim());
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(given);
    });
    dialog.showModal();
  });
}

function keep(key) {
  try {
    sessionStorage.setItem(KEY, key);
    return key !== "";
  } catch {
    return false;
  }
}
