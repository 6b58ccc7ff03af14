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
// On a phone each cell of a stacked table names its column (base.css).
function nameCells(root) {
  for (const table of root.querySelectorAll("table.stacked")) {
    const names = [...table.tHead.rows[0].cells].map((cell) => (cell.querySelector(".visually-hidden") ? "" : cell.textContent));
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, place) => { cell.dataset.name = names[place]; });
  }
}
nameCells(document);
// A form with data-ask asks for confirmation.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
});
