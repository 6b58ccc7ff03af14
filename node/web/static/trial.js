"use strict";
// A file can be dropped anywhere on the form; it is uploaded at once.
(() => {
  const form = document.getElementById("drop");
  if (!form) return;
  const file = document.getElementById("file");
  const send = () => {
    const status = document.getElementById("status");
    status.textContent = status.dataset.textBusy;
    form.querySelector("button").disabled = true;
  };
  form.addEventListener("submit", send);
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
  }
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    form.requestSubmit();
  });
})();
