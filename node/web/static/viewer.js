"use strict";
// The viewer: sixteen bits of grey from the red and green channel, shown with window and level; masks are drawn above.
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const stage = viewer.querySelector(".stage");
  const film = viewer.querySelector(".film");
  const canvas = viewer.querySelector("canvas");
  const context = canvas.getContext("2d", { alpha: false });
  const overlays = [...viewer.querySelectorAll("img[data-overlay]")];
  const status = viewer.querySelector(".status");
  const words = viewer.dataset;
  const button = (name) => viewer.querySelector(`[data-do="${name}"]`);
  const slider = (name) => viewer.querySelector(`[data-set="${name}"]`);
  const whole = { level: 500, width: 1000, invert: false };
  const look = { ...whole, overlay: true, pan: false, scale: 1, x: 0, y: 0, fitted: true };
  let grey = null;
  let frame = null;
  let pending = false;

  async function load() {
    const answer = await fetch(viewer.dataset.image);
    if (!answer.ok) throw new Error(answer.status === 404 ? words.textMissing : words.textFailed);
    const picture = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const { width, height } = picture;
    canvas.width = width;
    canvas.height = height;
    film.style.width = `${width}px`;
    film.style.height = `${height}px`;
    const reading = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    reading.drawImage(picture, 0, 0);
    const bytes = reading.getImageData(0, 0, width, height).data;
    grey = new Uint16Array(width * height);
    for (let i = 0, at = 0; i < grey.length; i += 1, at += 4) grey[i] = (bytes[at] << 8) | bytes[at + 1];
    frame = context.createImageData(width, height);
    status.hidden = true;
    fit();
    draw();
    viewer.dataset.ready = "true";
  }

  // Window and level in thousandths of the whole range; the linear function of PS3.3 C.11.2.1.2.1.
  function table() {
    const made = new Uint32Array(65536);
    const low = (look.level - look.width / 2) * 65.535;
    const span = Math.max(1, look.width * 65.535);
    for (let value = 0; value < 65536; value += 1) {
      const shown = Math.max(0, Math.min(255, Math.round(((value - low) / span) * 255)));
      const level = look.invert ? 255 - shown : shown;
      made[value] = 0xff000000 | (level << 16) | (level << 8) | level;
    }
    return made;
  }

  function draw() {
    pending = false;
    if (!grey) return;
    const lookup = table();
    const out = new Uint32Array(frame.data.buffer);
    for (let i = 0; i < grey.length; i += 1) out[i] = lookup[grey[i]];
    context.putImageData(frame, 0, 0);
    viewer.querySelector('[data-say="window"]').textContent = words.textWindow
      .replace("LEVEL", Math.round(look.level / 10)).replace("WIDTH", Math.round(look.width / 10));
  }

  function redraw() {
    slider("level").value = look.level;
    slider("width").value = look.width;
    button("invert").setAttribute("aria-pressed", String(look.invert));
    if (!pending) { pending = true; window.requestAnimationFrame(draw); }
  }

  function place() {
    film.style.transform = `translate(${look.x}px, ${look.y}px) scale(${look.scale})`;
    viewer.querySelector('[data-say="zoom"]').textContent = words.textZoom.replace("NUMBER", Math.round(look.scale * 100));
  }

  function fit() {
    const box = stage.getBoundingClientRect();
    look.scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    look.x = (box.width - canvas.width * look.scale) / 2;
    look.y = (box.height - canvas.height * look.scale) / 2;
    look.fitted = true;
    place();
  }

  function zoom(factor, at) {
    const box = stage.getBoundingClientRect();
    const x = at ? at.clientX - box.left : box.width / 2;
    const y = at ? at.clientY - box.top : box.height / 2;
    const scale = Math.max(0.05, Math.min(16, look.scale * factor));
    look.x = x - ((x - look.x) * scale) / look.scale;
    look.y = y - ((y - look.y) * scale) / look.scale;
    look.scale = scale;
    look.fitted = false;
    canvas.style.imageRendering = scale > 3 ? "pixelated" : "auto";
    place();
  }

  function showOverlays() {
    button("overlay").setAttribute("aria-pressed", String(look.overlay));
    for (const one of overlays) {
      const box = document.querySelector(`[data-toggle="${one.dataset.overlay}"]`);
      one.hidden = !look.overlay || (box !== null && !box.checked);
      one.style.opacity = String(slider("opacity").value / 100);
    }
  }

  const acts = {
    overlay: () => { if (overlays.length) { look.overlay = !look.overlay; showOverlays(); } },
    invert: () => { look.invert = !look.invert; redraw(); },
    pan: () => { look.pan = !look.pan; stage.classList.toggle("panning", look.pan); button("pan").setAttribute("aria-pressed", String(look.pan)); },
    in: () => zoom(1.25),
    out: () => zoom(0.8),
    fit,
    reset: () => { Object.assign(look, whole); redraw(); fit(); },
  };
  for (const one of viewer.querySelectorAll("[data-do]")) one.addEventListener("click", () => acts[one.dataset.do]());
  slider("opacity").addEventListener("input", showOverlays);
  for (const name of ["level", "width"]) slider(name).addEventListener("input", () => { look[name] = Number(slider(name).value); redraw(); });
  for (const box of document.querySelectorAll("[data-toggle]")) {
    box.addEventListener("change", () => { if (box.checked) look.overlay = true; showOverlays(); });
  }

  stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.12 : 1 / 1.12, event); }, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", fit);
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (!event.buttons || !stage.hasPointerCapture(event.pointerId)) return;
    if (look.pan || event.buttons !== 1 || event.shiftKey) {
      look.x += event.movementX;
      look.y += event.movementY;
      look.fitted = false;
      place();
      return;
    }
    look.width = Math.max(10, Math.min(1500, look.width + event.movementX * 2));
    look.level = Math.max(0, Math.min(1000, look.level + event.movementY * 2));
    redraw();
  });
  new ResizeObserver(() => { if (grey && look.fitted) fit(); }).observe(stage);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const act = { o: acts.overlay, i: acts.invert, "+": acts.in, "=": acts.in, "-": acts.out, 0: fit, r: acts.reset,
      w: () => { window.location.href = "/"; } }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  showOverlays();
  load().catch((error) => { status.hidden = false; status.textContent = error instanceof TypeError ? words.textFailed : error.message; viewer.dataset.ready = "failed"; });
})();
