// Thumbs: what a person thought of an answer, and why.
import { rate } from "./api.js";
import { el, iconButton, say } from "./dom.js";

/** Two thumbs; a thumb down asks what was wrong. `changed(rating)` is called when the service has kept it. */
export function thumbs(exchange, rating, changed) {
  const place = el("div", { class: "feedback" });
  const give = async (chosen, comment) => {
    try {
      await rate(exchange, comment ? { rating: chosen, comment } : { rating: chosen });
      say("Thank you, noted");
      press(chosen);
      changed(chosen);
      return true;
    } catch (error) {
      say(`Not noted: ${error.message}`);
      place.querySelector(".thanks").textContent = "Could not be noted";
      return false;
    }
  };
  const up = iconButton("up", "Good answer", () => give("up"));
  const down = iconButton(
    "down",
    "Bad answer",
    async () => (await give("down")) && askWhy(place, (text) => give("down", text)),
  );
  const press = (chosen) => {
    up.setAttribute("aria-pressed", String(chosen === "up"));
    down.setAttribute("aria-pressed", String(chosen === "down"));
    place.querySelector(".why")?.remove();
    place.querySelector(".thanks").textContent = "";
  };
  place.append(up, down, el("span", { class: "thanks" }));
  press(rating);
  return place;
}

function askWhy(place, give) {
  const input = el("input", {
    type: "text",
    maxlength: "2000",
    "aria-label": "What was wrong?",
    placeholder: "What was wrong? (optional)",
  });
  const form = el("form", { class: "why" }, input, el("button", { type: "submit", class: "button" }, "Send"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || (await give(text))) {
      form.remove();
      place.querySelector(".thanks").textContent = "Thank you";
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      form.remove();
    }
  });
  place.append(form);
  input.focus();
}
