"use strict";
// The live worklist: an event names changed studies, and the page fetches its rows again. Keys move between rows.
(() => {
  const list = document.getElementById("worklist");
  const live = document.getElementById("live");
  const news = document.getElementById("news");
  const search = document.getElementById("q");
  const keys = document.getElementById("keys");
  let timer = 0;
  let busy = false;
  let again = false;

  const rows = () => [...list.querySelectorAll("tr[data-study]")];
  const linkOf = (row) => row.querySelector("td.patient a");

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const address = new URL(window.location.href);
      address.searchParams.set("part", "rows");
      const answer = await fetch(address, { headers: { Accept: "text/html" } });
      if (answer.redirected) { window.location.reload(); return; }
      if (answer.ok) replace(await answer.text());
    } catch { /* the stream shows the lost connection and refreshes when it is back */ } finally {
      busy = false;
      if (again) { again = false; later(); }
    }
  }

  function replace(html) {
    const before = new Set(rows().map((row) => row.dataset.study));
    const focusedRow = document.activeElement && document.activeElement.closest("tr[data-study]");
    const focused = focusedRow && focusedRow.dataset.study;
    const made = new DOMParser().parseFromString(html, "text/html");
    list.replaceChildren(...made.body.childNodes);
    const fresh = rows().filter((row) => !before.has(row.dataset.study));
    for (const row of fresh) row.classList.add("new");
    if (focused) {
      const same = rows().find((row) => row.dataset.study === focused);
      if (same) linkOf(same).focus({ preventScroll: true });
    }
    if (fresh.length) news.textContent = fresh.length === 1 ? news.dataset.one : news.dataset.many.replace("NUMBER", fresh.length);
  }

  function later() {
    window.clearTimeout(timer);
    timer = window.setTimeout(refresh, 150);
  }

  function show(state) {
    live.dataset.state = state;
    live.textContent = live.dataset[state];
  }

  const stream = new EventSource("/events");
  stream.addEventListener("hello", () => { show("on"); later(); });
  stream.addEventListener("change", later);
  stream.addEventListener("error", () => {
    show("off");
    if (stream.readyState === EventSource.CLOSED) window.setTimeout(() => window.location.reload(), 5000);
  });
  window.addEventListener("pagehide", () => stream.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
  window.setInterval(refresh, 30000);

  list.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-study]");
    if (!row || event.target.closest("a") || String(window.getSelection())) return;
    linkOf(row).click();
  });

  function move(step) {
    const all = rows();
    if (!all.length) return;
    const focusedRow = document.activeElement.closest("tr[data-study]");
    const next = focusedRow ? all.indexOf(focusedRow) + step : step > 0 ? 0 : all.length - 1;
    const row = all[Math.max(0, Math.min(all.length - 1, next))];
    linkOf(row).focus();
    row.scrollIntoView({ block: "nearest" });
  }

  document.getElementById("keys-open").addEventListener("click", () => keys.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    const typing = event.target.closest("input, select, textarea");
    if (typing) { if (event.key === "Escape") typing.blur(); return; }
    const act = { j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
      "/": () => search.focus(), "?": () => keys.showModal() }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
