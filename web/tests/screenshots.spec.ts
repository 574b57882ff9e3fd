// The pictures that the README shows: `cargo xtask screenshots`.
import { expect, test } from '@playwright/test';
import { happen, logIn, visit } from './fleet';

const folder = process.env.MUSTER_SCREENSHOTS;

test('screenshots', async ({ page }) => {
  await page.setViewportSize({ width: 1280, height: 720 });
  await logIn(page);
  await happen('kill/edge-2');
  await expect(page.getByRole('main').getByText(/silent/).first()).toBeVisible();
  await page.waitForTimeout(8000);
  await page.screenshot({ path: `${folder}/fleet.png` });
  await happen('start/edge-2');
  await expect(page.getByRole('main').getByText('All is well.').first()).toBeVisible();
  await visit(page, '#/deployments/digits', 'digits');
  await happen('push/2');
  await expect(page.getByText(/wave 1 of 2/).first()).toBeVisible();
  await page.screenshot({ path: `${folder}/rollout.png` });
  await page.emulateMedia({ colorScheme: 'dark' });
  await visit(page, '#/devices/edge-1', 'edge-1');
  await page.waitForTimeout(3000);
  await page.screenshot({ path: `${folder}/device-dark.png` });
});
