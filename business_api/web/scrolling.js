// Follows a growing answer while the reader is at its end, and stays where the reader has gone.

const page = document.getElementById("conversation");
const latest = document.getElementById("latest");
const NEAR = 80;
let following = true;

const atEnd = () => page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;

/** Go to the end if the reader follows. */
export function follow() {
  if (following) page.scrollTop = page.scrollHeight;
  latest.hidden = following || atEnd();
}

/** Go to the end and follow from there. */
export function goToEnd() {
  following = true;
  follow();
}

page.addEventListener(
  "scroll",
  () => {
    following = atEnd();
    latest.hidden = following;
  },
  { passive: true },
);
latest.addEventListener("click", goToEnd);
