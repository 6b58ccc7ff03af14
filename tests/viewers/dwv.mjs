// Opens each radiograph and its SEG in dwv and takes a picture without and one with the segment.
//
// stdin:  {executable, origin, cases: [{name, image, mask, folder}]}; image and mask are paths of WADO on the origin
// stdout: {name: {faults, layers}}
// Pictures in each folder: dwv-hidden.png and dwv-shown.png.
import { openPage, request, stable, withBrowser } from './browser.mjs';

const ask = request();

async function shoot(page, path) {
  await stable(page, '#viewport');
  await page.locator('#viewport').screenshot({ path });
}

async function look(browser, one) {
  const { page, faults } = await openPage(browser, { width: 900, height: 900 });
  try {
    await page.goto(`http://${ask.origin}/pages/dwv.html`);
    await page.waitForFunction(() => window.show);
    await page.evaluate((path) => window.show(`${location.origin}${path}`), one.image);
    await shoot(page, `${one.folder}/dwv-hidden.png`);
    await page.evaluate((path) => window.show(`${location.origin}${path}`), one.mask);
    await shoot(page, `${one.folder}/dwv-shown.png`);
    return { faults, layers: await page.evaluate(() => window.dwvApp.getViewLayers().length) };
  } catch (error) {
    return { faults, failed: String(error.message) };
  } finally {
    await page.context().close();
  }
}

const answers = await withBrowser(ask.executable, async (browser) => {
  const found = {};
  for (const one of ask.cases) found[one.name] = await look(browser, one);
  return found;
});
process.stdout.write(JSON.stringify(answers));
