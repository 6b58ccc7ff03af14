"use strict";
// The live part of the system page: asked for again after news of a study, and every ten seconds while the page is seen.
(() => {
  const live = document.getElementById("live");
  const updated = document.getElementById("updated");
  let timer = 0;
  let busy = false;

  // What a person is about to use stays where it is.
  const inUse = () => live.contains(document.activeElement);
  const opened = () => [...live.querySelectorAll("details[id][open]")].map((one) => one.id);

  async function refresh() {
    if (busy || document.hidden || inUse()) return;
    busy = true;
    try {
      const answer = await fetch("/system?part=live", { headers: { Accept: "text/html" } });
      if (answer.redirected) { window.location.reload(); return; }
      if (!answer.ok) throw new Error(answer.statusText);
      const made = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (inUse()) return;
      const open = opened();
      show("on", [...made.getElementById("as-of").childNodes]);
      live.replaceChildren(...made.body.childNodes);
      nameCells(live); // base.js
      for (const id of open) {
        const same = document.getElementById(id);
        if (same) same.open = true;
      }
    } catch {
      show("off", [updated.dataset.off]);
    } finally {
      busy = false;
    }
  }

  function show(state, content) {
    updated.dataset.state = state;
    updated.replaceChildren(...content);
  }

  function later() {
    if (!timer) timer = window.setTimeout(() => { timer = 0; refresh(); }, 2000);
  }

  new EventSource("/events").addEventListener("change", later);
  document.addEventListener("visibilitychange", refresh);
  window.setInterval(refresh, 10000);
})();
