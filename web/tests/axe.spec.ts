// axe-core over every page, light and dark, wide and narrow; and nothing is wider than the window.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, test, type Page } from '@playwright/test';
import { logIn, visit } from './fleet';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PAGES = [
  ['#/', 'Fleet'],
  ['#/deployments', 'Deployments'],
  ['#/deployments/digits', 'digits'],
  ['#/devices/edge-1', 'edge-1'],
  ['#/events', 'Events'],
  ['#/nowhere', 'There is no such page'],
] as const;

async function check(page: Page, what: string): Promise<void> {
  // Evaluated by the test's own channel: the page's policy stays as strict as it is.
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    // @ts-expect-error put there by the line above
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map((it: { id: string; nodes: { target: unknown }[] }) => `${it.id}: ${it.nodes.map((node) => node.target)}`);
  });
  expect(found, what).toEqual([]);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(overflow, `${what} is wider than the window`).toBeLessThanOrEqual(0);
}

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [1440, 390]) {
    test.describe(`${colorScheme}, ${width} px`, () => {
      test.use({ colorScheme, viewport: { width, height: 900 } });

      test('no page has a violation', async ({ page }) => {
        await page.goto('/');
        await expect(page.getByLabel('Password')).toBeVisible();
        await check(page, 'login');
        await logIn(page);
        for (const [hash, heading] of PAGES) {
          await visit(page, hash, heading);
          // Twice drawn, with what the stream and the first answers brought.
          await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
          await check(page, hash);
        }
      });
    });
  }
}
