// One visit to the admin page in headless Chromium, from log-in to log-out, with a check by axe on every page.
// Talks to the test by lines: it writes "arrive" when a study should arrive, and "ok NAME" for each step.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const assert = require("node:assert/strict");
const { chromium } = require("playwright-core");

const { BASE: base, SHOTS: shots, PASSWORD: password, CHROMIUM: executablePath } = process.env;
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const said = (name) => console.log(`ok ${name}`);

async function accessible(page, name) {
  // Injected by the test itself: the page's own policy lets no foreign script in.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const told = bad.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`);
  assert.deepEqual(told, [], `axe on ${name}`);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  const pale = await page.evaluate(() => window.axe.run(document, { runOnly: ["color-contrast"], resultTypes: ["violations"] }));
  assert.deepEqual(pale.violations.flatMap((one) => one.nodes.map((node) => node.html)), [], `contrast of ${name} by day`);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: path.join(shots, `${name}.png`) });
  said(`axe ${name}`);
  await fitsAPhone(page, name);
}

// The page must not scroll sideways on a telephone, and those that people use there have no table that does.
const ON_A_PHONE = ["worklist", "study", "system", "system for an admin", "people"];

async function fitsAPhone(page, name) {
  const usual = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 780 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, `width of ${name}`);
  const wide = await page.evaluate(() => [...document.querySelectorAll(".scrolling, .worklist")]
    .filter((part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.textContent.slice(0, 60)));
  if (ON_A_PHONE.includes(name)) assert.deepEqual(wide, [], `tables of ${name}`);
  await page.setViewportSize(usual);
}

async function logIn(page, name) {
  await page.goto(`${base}/login`);
  await page.fill("[name=name]", name);
  await page.fill("[name=password]", password);
  await Promise.all([page.waitForURL(`${base}/`), page.click("button[type=submit]")]);
}

// The pixels of the stage as shown, and whether two such pictures differ inside and outside of the mask.
async function seen(page) {
  const box = await page.locator(".viewer .film").boundingBox();
  const stage = await page.locator(".viewer .stage").boundingBox();
  const png = await page.screenshot({ clip: stage });
  return { png: png.toString("base64"), film: { x: box.x - stage.x, y: box.y - stage.y, width: box.width, height: box.height } };
}

async function differences(page, one, other, mask) {
  return page.evaluate(async ([first, second, film, address]) => {
    const read = async (source) => {
      const picture = await createImageBitmap(await (await fetch(source)).blob());
      const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
      context.drawImage(picture, 0, 0);
      return context.getImageData(0, 0, picture.width, picture.height);
    };
    const decode = async (text) => {
      const picture = await createImageBitmap(new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" }));
      const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
      context.drawImage(picture, 0, 0);
      return context.getImageData(0, 0, picture.width, picture.height);
    };
    const [a, b, m] = [await decode(first), await decode(second), await read(address)];
    const count = { inside: 0, insideChanged: 0, outside: 0, outsideChanged: 0 };
    for (let y = Math.ceil(film.y) + 2; y < film.y + film.height - 2 && y < a.height; y += 2) {
      for (let x = Math.ceil(film.x) + 2; x < film.x + film.width - 2 && x < a.width; x += 2) {
        const at = (dx, dy) => {
          const mx = Math.round(((x + dx - film.x) / film.width) * m.width);
          const my = Math.round(((y + dy - film.y) / film.height) * m.height);
          return mx >= 0 && my >= 0 && mx < m.width && my < m.height && m.data[4 * (my * m.width + mx) + 3] > 0;
        };
        const near = [at(0, 0), at(4, 0), at(-4, 0), at(0, 4), at(0, -4)];
        if (near.some(Boolean) && !near.every(Boolean)) continue; // the edge is smoothed
        const i = 4 * (y * a.width + x);
        const changed = [0, 1, 2].some((c) => Math.abs(a.data[i + c] - b.data[i + c]) > 2);
        const where = near[0] ? "inside" : "outside";
        count[where] += 1;
        if (changed) count[`${where}Changed`] += 1;
      }
    }
    return count;
  }, [one.png, other.png, one.film, mask]);
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: quiet });
  const page = await browser.newPage({ viewport: { width: 1560, height: 980 }, colorScheme: "dark" });
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") wrong.push(message.text()); });
  page.on("request", (request) => { if (!request.url().startsWith(base)) wrong.push(`asked another host: ${request.url()}`); });
  page.setDefaultTimeout(60000);

  await page.goto(`${base}/login`);
  await accessible(page, "login");
  await logIn(page, "rosa");
  await page.waitForSelector('#live[data-state="on"]');
  said("log in");

  const before = await page.locator("tr[data-study]").count();
  await page.waitForTimeout(1500); // the feed's first look at the table of events
  console.log("arrive");
  await page.waitForFunction((count) => document.querySelectorAll("tr[data-study]").length === count + 1, before);
  await page.waitForSelector("tr.new:has-text('Vandermeer, Iris')");
  said("a study arrives live");
  await accessible(page, "worklist");

  await page.keyboard.press("j");
  assert.match(await page.evaluate(() => document.activeElement.getAttribute("href")), /^\/studies\/\d+$/);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "q");
  await page.keyboard.type("ferrante");
  await Promise.all([page.waitForURL(/q=ferrante/), page.keyboard.press("Enter")]);
  assert.equal(await page.locator("tr[data-study]").count(), 1);
  said("keys and search");

  await Promise.all([page.waitForURL(/studies/), page.locator("tr[data-study]").click()]);
  await page.waitForSelector('.viewer[data-ready="true"]');
  const mask = await page.locator("img[data-overlay]").first().getAttribute("src");
  await page.waitForFunction(() => [...document.querySelectorAll("img[data-overlay]")].every((one) => one.complete));
  const on = await seen(page);
  await page.click('[data-do="overlay"]');
  const off = await seen(page);
  const count = await differences(page, on, off, mask);
  assert.ok(count.inside > 500, JSON.stringify(count));
  assert.ok(count.insideChanged > 0.98 * count.inside, JSON.stringify(count));
  assert.equal(count.outsideChanged, 0, JSON.stringify(count));
  await page.click('[data-do="overlay"]');
  said("overlay changes the pixels of the mask and no others");

  await page.keyboard.press("i");
  await page.waitForTimeout(300);
  const inverted = await differences(page, off, await seen(page), mask);
  assert.ok(inverted.outsideChanged > 0.5 * inverted.outside, JSON.stringify(inverted));
  await page.keyboard.press("r");
  said("invert");
  await accessible(page, "study");

  const finding = page.locator('[data-finding][data-label="lung_opacity"]');
  await finding.locator("[name=comment]").fill("nipple shadow");
  await finding.locator('button[value="reject"]').click();
  await page.waitForSelector("text=Rejected");
  await page.waitForSelector("text=nipple shadow");
  said("reject a finding");

  await page.goto(`${base}/?show=failed`);
  await Promise.all([page.waitForURL(/studies/), page.locator("tr[data-study]").first().click()]);
  await page.locator('form[action$="/retry"] button').click();
  await page.waitForSelector('.job .badge:has-text("Queued")');
  said("retry a failed job");

  const address = page.url().split("?")[0];
  await page.click("text=Mark as reported");
  await page.waitForSelector("text=Reported by rosa");
  await page.goto(`${base}/`);
  await page.waitForSelector("tr[data-study]");
  assert.equal(await page.locator(`a[href="${new URL(address).pathname}"]`).count(), 0);
  said("a reported study leaves the worklist");

  for (const [name, place] of [["system", "/system"], ["try", "/try"], ["account", "/account"]]) {
    await page.goto(base + place);
    await accessible(page, name);
  }
  // Language and theme are remembered for the user, whatever the browser asks for; the longest words fit a telephone.
  await page.goto(`${base}/`);
  await page.click("header .menu > summary");
  await Promise.all([page.waitForNavigation(), page.click('button[name=language][value="de"]')]);
  await page.click("header .menu > summary");
  await Promise.all([page.waitForNavigation(), page.click('button[name=theme][value="light"]')]);
  assert.equal(await page.locator('html[lang="de"][data-theme="light"] h1').innerText(), "Arbeitsliste");
  const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  assert.equal(ground, "rgb(243, 245, 248)", "light, though the browser asks for dark");
  await fitsAPhone(page, "worklist");
  said("German and light, remembered");
  await page.click("header .menu > summary");
  await Promise.all([page.waitForURL(/login/), page.click("text=Abmelden")]);
  await page.goto(`${base}/system`);
  assert.match(page.url(), /\/login\?next=/);
  said("log out");

  await logIn(page, "ada");
  for (const [name, place] of [["people", "/users"], ["audit", "/audit"], ["history", `${new URL(address).pathname}/history`]]) {
    await page.goto(base + place);
    await accessible(page, name);
  }
  // A switch asks first, needs a reason, and is confirmed on the model's own page.
  await page.goto(`${base}/system`);
  await accessible(page, "system for an admin");

  // What it does every ten seconds, at once: the part that lives is replaced.
  await page.evaluate(() => {
    document.activeElement.blur();
    document.querySelector("#parts").dataset.old = "yes";
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForSelector('#updated[data-state="on"]');
  await page.waitForSelector("#parts:not([data-old])");
  assert.ok(await page.locator('#parts td[data-name="State"]').count() >= 7);
  assert.match(await page.locator("#parts tr:has-text('Listener')").innerText(), /Stopped/);
  assert.equal(await page.locator("#configuration summary").count(), 1);
  said("the system page renews itself");
  const asked = [];
  page.on("dialog", (dialog) => { asked.push(dialog.message()); dialog.accept(); });
  await page.click("details.switch summary");
  await page.selectOption("details.switch[open] select", "off");
  await page.fill("details.switch[open] [name=reason]", "notifications on every skin fold");
  await Promise.all([page.waitForURL(/done=switched/), page.click("details.switch[open] button[type=submit]")]);
  assert.equal(asked.length, 1);
  assert.match(await page.textContent("[role=status]"), /From the next image on this model is off/);
  await accessible(page, "model");
  said("switch a model off");
  assert.deepEqual(wrong, []);
  said("no script error, no request to another host");
  await browser.close();
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
