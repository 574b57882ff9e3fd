// The page against a real control plane and three real agents. One story in order: each test leaves
// the fleet whole for the next.
import { expect, test, type Page } from '@playwright/test';
import { complaints, happen, logIn, stands, visit } from './fleet';

test.describe.configure({ mode: 'serial' });

/** The devices that a deployment's page shows as holders of a replica. */
async function holders(page: Page): Promise<string[]> {
  const links = page.getByRole('main').getByRole('table').first().getByRole('link', { name: /^edge-/ });
  return (await links.allInnerTexts()).sort();
}

test('a wrong password is told, and lets nobody in', async ({ page }) => {
  await page.goto('/');
  await page.getByLabel('User').fill('admin');
  await page.getByLabel('Password').fill('not-this-one');
  await page.getByRole('button', { name: 'Log in' }).click();
  await expect(page.getByText(/wrong/)).toBeVisible();
  await expect(page.getByRole('heading', { level: 1, name: 'Fleet' })).toBeHidden();
  expect((await page.request.get('/api/v1/devices')).status()).toBe(401);
});

test('three devices and two deployments are there', async ({ page }) => {
  const said = complaints(page);
  await logIn(page);
  for (const device of ['edge-1', 'edge-2', 'edge-3']) {
    await expect(page.getByRole('link', { name: device })).toBeVisible();
  }
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
  await expect(page.getByRole('main').getByText('All is well.').first()).toBeVisible();
  await page.getByRole('link', { name: 'Deployments' }).click();
  await stands(page, 'Deployments');
  for (const deployment of ['digits', 'linear_regression']) {
    await expect(page.getByRole('main').getByRole('link', { name: deployment, exact: true })).toBeVisible();
  }
  await visit(page, '#/devices/edge-1', 'edge-1');
  await visit(page, '#/events', 'Events');
  await expect(page.getByText('digits version 1 is on every device')).toBeVisible();
  expect(said).toEqual([]);
});

test('what is under way has a heading above it, also when all is well', async ({ page }) => {
  await logIn(page);
  await expect(page.getByRole('heading', { level: 2, name: 'All is well.' })).toBeVisible();
});

test('a stopped agent is seen, and its replica moves', async ({ page }) => {
  const said = complaints(page);
  await logIn(page);
  await visit(page, '#/deployments/digits', 'digits');
  await expect.poll(() => holders(page)).toHaveLength(2);
  const before = await holders(page);
  const lost = before[0]!;
  await happen(`kill/${lost}`);
  await expect.poll(() => holders(page)).not.toContain(lost);
  await expect.poll(() => holders(page)).toHaveLength(2);
  await visit(page, '#/', 'Fleet');
  await expect(page.getByRole('main').getByText('All is well.').first()).toBeHidden();
  await expect(page.getByRole('main').getByText(/silent/).first()).toBeVisible();
  await happen(`start/${lost}`);
  await expect(page.getByRole('main').getByText('All is well.').first()).toBeVisible();
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
  expect(said).toEqual([]);
});

test('a new version comes wave by wave, and an operator takes it back', async ({ page }) => {
  await logIn(page);
  await visit(page, '#/deployments/digits', 'digits');
  await happen('push/2');
  await expect(page.getByText(/wave 1 of 2/).first()).toBeVisible();
  await expect(page.getByText('every device has it').first()).toBeVisible();
  await expect(page.getByRole('heading', { name: /Rollout of.*2/ })).toBeVisible();
  await page.getByRole('button', { name: 'Undo…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Undo', exact: true }).click();
  await expect(page.getByText(/an operator took it back/).first()).toBeVisible();
});

test('a bad version comes no further than the first device, and the page says why', async ({ page }) => {
  await logIn(page);
  await visit(page, '#/deployments/digits', 'digits');
  await happen('push-bad/3');
  await expect(page.getByText(/refused version 3/).first()).toBeVisible();
  await visit(page, '#/', 'Fleet');
  await expect(page.getByRole('main').getByText(/refused version 3/).first()).toBeVisible();
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
});

test('the page recovers by itself when the control plane restarts under it', async ({ page }) => {
  await logIn(page);
  await happen('restart-plane');
  await expect(page.getByText('Live')).toBeVisible();
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
  // And it is live, not a picture of before.
  await happen('muster/scale+linear_regression+--replicas+2');
  await expect(page.getByText('4 of 4 replicas ready')).toBeVisible();
  await happen('muster/scale+linear_regression+--replicas+3');
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
});

test('a database that was put back is told, and changes go on when an operator approves', async ({ page }) => {
  await logIn(page);
  await happen('restore');
  const told = page.getByRole('heading', { name: /The database was put back/ });
  await expect(told).toBeVisible();
  await page.getByRole('button', { name: 'Approve…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Approve', exact: true }).click();
  await expect(told).toBeHidden();
  await expect(page.getByText('5 of 5 replicas ready')).toBeVisible();
});

test('who logs out is out', async ({ page }) => {
  await logIn(page);
  await page.getByRole('button', { name: 'Log out' }).click();
  await expect(page.getByLabel('Password')).toBeVisible();
  expect((await page.request.get('/api/v1/devices')).status()).toBe(401);
});
