// Every page in each language, theme and width: axe finds nothing serious, and nothing scrolls sideways.
// PAGES is a list of [name, path, user]; writes "ok NAME" for each page, and a screenshot of each look into SHOTS where
// somebody will look at them.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const { BASE: base, SHOTS: shots, PASSWORD: password, CHROMIUM: executablePath } = process.env;
const pages = JSON.parse(process.env.PAGES);
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const WIDTHS = { 360: 780, 768: 1024, 1280: 800 };
const COLOURS = ["color-contrast", "link-in-text-block"];

async function logIn(page, user) {
  await page.context().clearCookies();
  await page.goto(`${base}/login`);
  if (!user) return;
  await page.fill("[name=name]", user);
  await page.fill("[name=password]", password);
  await Promise.all([page.waitForURL(`${base}/`), page.click("button[type=submit]")]);
}

// A theme is colours: axe need not ask in the dark what does not depend on them, nor twice whether texts can be read.
const asked = (language, colorScheme) => (colorScheme === "light" ? [] : language === "en" ? COLOURS : null);

async function violations(page, rules) {
  if (rules === null) return [];
  const only = rules.length ? { runOnly: { type: "rule", values: rules } } : {};
  const found = await page.evaluate((options) => window.axe.run(document, options), { resultTypes: ["violations"], ...only });
  return found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
}

async function problems(page, look, rules) {
  const bad = await violations(page, rules);
  const told = bad.map((one) => `${look}: ${one.id}: ${one.nodes.map((node) => `${node.html} (${node.failureSummary})`).slice(0, 3).join(" | ")}`);
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (sideways > 0) told.push(`${look}: scrolls sideways by ${sideways} pixels`);
  const cut = await page.evaluate(() => [...document.querySelectorAll(".worklist")].map((one) => one.scrollWidth - one.clientWidth));
  told.push(...await outside(page, look));
  return [...told, ...cut.filter((pixels) => pixels > 0).map((pixels) => `${look}: the list is cut off by ${pixels} pixels`)];
}

// What a button opens must lie on the screen: nobody can scroll to the left of a page.
async function outside(page, look) {
  const places = await page.evaluate(() => [...document.querySelectorAll("details:has(> .sheet, > .pop)")].map((menu) => {
    menu.open = true;
    const { left, right } = menu.querySelector(":scope > .sheet, :scope > .pop").getBoundingClientRect();
    menu.open = false;
    return { name: menu.querySelector("summary").innerText.trim(), left, right, width: window.innerWidth };
  }));
  const wrong = places.filter(({ left, right, width }) => left < 0 || right > width);
  return wrong.map(({ name, left, right }) => `${look}: "${name}" opens outside of the screen (${left} to ${right})`);
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: quiet });
  const wrong = [];
  for (const language of ["en", "de"]) {
    const context = await browser.newContext({ locale: language, reducedMotion: "reduce" });
    const page = await context.newPage();
    page.setDefaultTimeout(60000);
    page.on("console", (message) => { if (message.type() === "error" && !message.text().includes("403")) wrong.push(`${page.url()}: ${message.text()}`); });
    let who = null;
    for (const [name, address, user] of pages) {
      if (user !== who) { await logIn(page, user); who = user; }
      await page.goto(base + address, { waitUntil: "load" });
      if ((await page.getAttribute("html", "lang")) !== language) wrong.push(`${name} is not in ${language}`);
      await page.evaluate(axe); // by the test itself: the page's own policy lets no foreign script in
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const [width, height] of Object.entries(WIDTHS)) {
          await page.setViewportSize({ width: Number(width), height });
          const look = `${name}-${language}-${colorScheme}-${width}`;
          wrong.push(...await problems(page, look, asked(language, colorScheme)));
          if (shots) await page.screenshot({ path: path.join(shots, `${look}.png`) });
        }
      }
      console.log(`ok ${name} ${language}`);
    }
    await context.close();
  }
  await browser.close();
  if (wrong.length) { console.log(wrong.join("\n")); process.exit(1); }
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
