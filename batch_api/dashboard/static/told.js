// Says in `#told`, for screen readers, what `data-told` says on the page: only when it has changed,
// and not at the beginning. Counts and speeds, which change all the time, are left to be read.
"use strict";

const toldOnThePage = () => document.querySelector("[data-told]")?.dataset.told;
let lastTold = toldOnThePage();

document.addEventListener("htmx:afterSettle", () => {
  const now = toldOnThePage();
  if (now === lastTold) return;
  lastTold = now;
  document.getElementById("told").textContent = now;
});
