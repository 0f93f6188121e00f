// The question box: grows with its text, sends on Enter, and holds the stop button while an answer runs.

const form = document.getElementById("composer");
const box = document.getElementById("question");
const send = document.getElementById("send");
const stop = document.getElementById("stop");

/** Wire the box: `ask(text)` for a question that is not blank, `halt()` for stop. */
export function wireComposer({ ask, halt }) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text || send.hidden) return;
    fill("");
    ask(text);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  box.addEventListener("input", settle);
  stop.addEventListener("click", halt);
  settle();
}

/** Put a text into the box and the cursor behind it. */
export function fill(text) {
  box.value = text;
  settle();
  box.focus();
}

/** Show the stop button instead of send. The focus never falls off the page. */
export function showRunning(running) {
  const held = document.activeElement === send || document.activeElement === stop;
  send.hidden = running;
  stop.hidden = !running;
  if (held) box.focus();
}

function settle() {
  send.disabled = box.value.trim() === "";
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 220)}px`;
}
