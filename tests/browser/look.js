// A person in front of the admin page: logs in, and for each line "NAME PATH" on standard input opens the page, takes a
// screenshot NAME.png and writes one line of JSON: what is to be read there.
"use strict";
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const { BASE: base, SHOTS: shots, PASSWORD: password, CHROMIUM: executablePath } = process.env;
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function main() {
  const browser = await chromium.launch({ executablePath, args: quiet });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, address] = line.split(" ");
    await page.goto(base + address, { waitUntil: "load" });
    if (new URL(page.url()).pathname === "/login" && address !== "/login") {
      await page.fill("[name=name]", "anna");
      await page.fill("[name=password]", password);
      await Promise.all([page.waitForNavigation(), page.click("button[type=submit]")]);
      await page.goto(base + address, { waitUntil: "load" });
    }
    await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });
    console.log(JSON.stringify(await page.evaluate(() => document.body.innerText)));
  }
  await browser.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
