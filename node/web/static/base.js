"use strict";
// Menus close on a click elsewhere or on Escape.
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.menu[open], details.switch[open], .actions details[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const open of document.querySelectorAll("details.menu[open], details.switch[open], .actions details[open]")) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
// A form with data-ask asks for confirmation.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
});
