// Buttons with `data-call` ask the API: by `data-method`, after a `data-question` if there is one,
// and go to `data-then` afterwards, where {id} is that of what the API answered.
"use strict";

function ask(button) {
  const dialog = document.getElementById("question");
  document.getElementById("asked").textContent = button.dataset.question;
  document.getElementById("yes").textContent = button.dataset.yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((tell) => {
    dialog.addEventListener("close", () => tell(dialog.returnValue === "yes"), { once: true });
  });
}

let isBusy = false; // not `disabled`, which would take the focus away

async function act(button) {
  // The button may be gone when the answer comes.
  const { call, method, question, then } = button.dataset;
  if (isBusy || (question && !(await ask(button)))) return;
  isBusy = true;
  try {
    const answer = await fetch(call, { method });
    const told = await answer.json();
    if (!answer.ok) notice(told.error.message);
    else if (then) location.assign(then.replace("{id}", told.id));
  } catch {
    notice("The server can’t be reached.");
  } finally {
    isBusy = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-call]");
  if (button) act(button);
});
