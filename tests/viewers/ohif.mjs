// Opens each study in OHIF as a radiologist would, takes pictures, and answers with what the page says.
//
// stdin:  {executable, origin, size, cases: [{name, study, seg, sr, folder}]}; seg and sr are Series Numbers
// stdout: {name: {faults, markers, segmentation, report: {words, lines}}}, or {faults, failed} where it did not get that far
// Pictures in each folder: hidden.png and shown.png (the viewport alone, overlay off and on), ohif-seg.png (the whole
// page), contour-hidden.png and contour-shown.png, ohif-sr.png.
import { openPage, request, stable, withBrowser } from './browser.mjs';

const ask = request();
const VIEWPORT = '[data-cy="viewport-pane"]';
// Words and symbols over the picture would count as differences of the picture.
const PICTURE_ONLY =
  '.viewport-overlay, .ViewportOrientationMarkers, .overlay-text, [class*="toast"], [data-sonner-toaster], ' +
  '[class*="absolute"][class*="z-"] { visibility: hidden !important }';

const drawn = () => {
  const elements = window.cornerstone?.getEnabledElements() ?? [];
  return elements.some((element) => element.viewport.getImageData?.());
};

async function picture(page, path) {
  const style = await page.addStyleTag({ content: PICTURE_ONLY });
  await stable(page, VIEWPORT);
  await page.locator(VIEWPORT).first().screenshot({ path });
  await style.evaluate((node) => node.remove());
}

const markers = (page) =>
  page.$$eval('.orientation-marker-value', (nodes) => nodes.map((node) => node.innerText.trim()).filter(Boolean));

const openSeries = (page, number) => page.locator(`[data-series="${number}"]`).first().dblclick();

const answerYes = async (page) => {
  const button = page.getByRole('button', { name: 'Yes', exact: true });
  await button.waitFor();
  await button.click();
  await button.waitFor({ state: 'detached' });
};

// Switch all segments of the first viewport on or off through the same call that the panel's eye symbol makes.
const showSegments = (page, visible) =>
  page.evaluate((wanted) => {
    const { viewport } = window.cornerstone.getEnabledElements()[0];
    const { segmentation, Enums } = window.cornerstoneTools;
    for (const shown of segmentation.state.getSegmentationRepresentations(viewport.id)) {
      segmentation.config.visibility.setSegmentationRepresentationVisibility(
        viewport.id,
        { segmentationId: shown.segmentationId, type: Enums.SegmentationRepresentations.Labelmap },
        wanted,
      );
    }
    viewport.render();
  }, visible);

async function lookAtSegmentation(page, folder) {
  await openSeries(page, folder.seg);
  await answerYes(page);
  await page.waitForFunction(() => window.services.segmentationService.getSegmentations().length > 0);
  await stable(page, VIEWPORT);
  await page.screenshot({ path: `${folder.folder}/ohif-seg.png` });
  await picture(page, `${folder.folder}/shown.png`);
  await showSegments(page, false);
  await picture(page, `${folder.folder}/hidden.png`);
  await showSegments(page, true);
  return page.evaluate(() =>
    window.services.segmentationService.getSegmentations().map(({ label, segments }) => ({
      label,
      segments: Object.values(segments).map((segment) => segment.label),
    })),
  );
}

// OHIF 3.13 may learn which measurements to draw just after it has drawn; whatever redraws (a window that changes, a
// wheel, a click) then shows them.
async function waitForContours(page) {
  for (let look = 0; look < 100; look++) {
    await page.waitForTimeout(1000);
    const lines = await page.$$eval('.svg-layer path, .svg-layer polyline', (nodes) => nodes.length);
    if (lines > 0) return;
    await page.evaluate(() => window.cornerstone.getEnabledElements().forEach(({ viewport }) => viewport.render()));
  }
  throw new Error('no contour of the report was drawn');
}

// Corners of every closed line, in pixels of the viewport's own screenshot.
const contours = (page) =>
  page.evaluate((selector) => {
    const pane = document.querySelector(selector).getBoundingClientRect();
    return [...document.querySelectorAll('.svg-layer polyline, .svg-layer path')].map((line) => {
      const layer = line.closest('svg').getBoundingClientRect();
      const numbers = (line.getAttribute('points') ?? line.getAttribute('d')).match(/-?[\d.]+/g).map(Number);
      const corners = [];
      for (let at = 0; at + 1 < numbers.length; at += 2) {
        corners.push([numbers[at] + layer.x - pane.x, numbers[at + 1] + layer.y - pane.y]);
      }
      return corners;
    });
  }, VIEWPORT);

async function lookAtReport(page, folder) {
  await openSeries(page, folder.sr);
  await waitForContours(page);
  await stable(page, VIEWPORT);
  await page.screenshot({ path: `${folder.folder}/ohif-sr.png` });
  const words = await page.$$eval('.svg-layer text', (nodes) =>
    nodes.map((node) => [...node.children].map((line) => line.textContent).join('\n')),
  );
  const lines = await contours(page);
  await picture(page, `${folder.folder}/contour-shown.png`);
  const style = await page.addStyleTag({ content: '.svg-layer { visibility: hidden !important }' });
  await picture(page, `${folder.folder}/contour-hidden.png`);
  await style.evaluate((node) => node.remove());
  return { words, lines };
}

async function look(browser, one) {
  const { page, faults } = await openPage(browser, ask.size);
  try {
    await page.addInitScript(() => localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour'])));
    await page.goto(`http://${ask.origin}/viewer?StudyInstanceUIDs=${one.study}`);
    await page.waitForFunction(drawn);
    await stable(page, VIEWPORT);
    const answer = { faults, markers: { image: await markers(page) } };
    if (one.seg) {
      answer.segmentation = await lookAtSegmentation(page, one);
      answer.markers.segmentation = await markers(page);
    }
    if (one.sr) {
      answer.report = await lookAtReport(page, one);
      answer.markers.report = await markers(page);
    }
    return answer;
  } catch (error) {
    await page.screenshot({ path: `${one.folder}/failed.png` }).catch(() => {});
    return { faults, failed: String(error.message) };
  } finally {
    await page.context().close();
  }
}

const answers = await withBrowser(ask.executable, async (browser) => {
  const found = {};
  for (const one of ask.cases) {
    found[one.name] = await look(browser, one);
    // A starved machine has been seen to stop OHIF while it was loading; a page that fails twice is a failure.
    if (found[one.name].failed) found[one.name] = await look(browser, one);
  }
  return found;
});
process.stdout.write(JSON.stringify(answers));
