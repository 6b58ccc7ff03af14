// What every browser script here shares: how Chromium is started, and one JSON request in, one JSON answer out.
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

// Software rendering: there is no GPU on a test machine. The rest keeps Chromium from calling home.
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--use-gl=angle',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export const request = () => JSON.parse(readFileSync(0, 'utf8'));

export async function withBrowser(executablePath, work) {
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  try {
    return await work(browser);
  } finally {
    await browser.close();
  }
}

// What `selector` shows counts as stable when two looks at it, half a second apart, are the same.
export async function stable(page, selector) {
  let last = '';
  for (let look = 0; look < 100; look++) {
    const now = (await page.locator(selector).first().screenshot()).toString('base64');
    if (now === last) return;
    last = now;
    await page.waitForTimeout(500);
  }
  throw new Error('the viewport does not come to rest');
}

// A page that keeps what went wrong in it.
export async function openPage(browser, size) {
  const context = await browser.newContext({ viewport: size });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  const faults = [];
  page.on('pageerror', (error) => faults.push(`uncaught: ${error.message}`.slice(0, 500)));
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`.slice(0, 500));
  });
  page.on('response', (response) => {
    if (response.status() >= 400) faults.push(`${response.status()} ${new URL(response.url()).pathname}`);
  });
  return { page, faults };
}
