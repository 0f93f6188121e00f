// Whether answers are to be explained: a switch below the question box, remembered by this browser.

const KEY = "tandem.explain";
const button = document.getElementById("explain");

export const explainWanted = () => button.getAttribute("aria-checked") === "true";

/** Turn the switch; it stays so across reloads. */
export function wantExplain(wanted) {
  button.setAttribute("aria-checked", String(wanted));
  try {
    localStorage.setItem(KEY, wanted ? "on" : "off");
  } catch {
    // it lasts until the page is closed
  }
}

/** Show it only where there is something to explain. */
export function offerExplain(offered) {
  button.hidden = !offered;
}

function remembered() {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false; // storage is switched off
  }
}

button.setAttribute("aria-checked", String(remembered()));
button.addEventListener("click", () => wantExplain(!explainWanted()));
