// What happens to the fleet while a test watches the page, and what every test does first.
import { expect, type Page } from '@playwright/test';

/** Makes something happen: `kill/edge-1`, `push/2`, `restart-plane`. */
export async function happen(path: string): Promise<void> {
  const answer = await fetch(`${process.env.MUSTER_FLEET}/${path}`, { method: 'POST' });
  if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
}

/** Logs in, and waits for the first picture of the fleet. */
export async function logIn(page: Page): Promise<void> {
  await page.goto('/');
  await page.getByLabel('User').fill('admin');
  await page.getByLabel('Password').fill(process.env.MUSTER_PASSWORD ?? '');
  await page.getByRole('button', { name: 'Log in' }).click();
  await expect(page.getByRole('heading', { level: 1, name: 'Fleet' })).toBeVisible();
  await expect(page.getByText('Live')).toBeVisible();
}

/**
 * Goes to a page of the dashboard and waits until it stands there: until then the page before it is
 * still drawn, with links and words that a test would take for the new page's own.
 */
export async function visit(page: Page, hash: string, heading: string): Promise<void> {
  await page.goto(`/${hash}`);
  await stands(page, heading);
}

/** Waits until the page with this heading stands there, as after a click on a link. */
export async function stands(page: Page, heading: string): Promise<void> {
  await expect(page.getByRole('heading', { level: 1, name: heading, exact: true })).toBeVisible();
}

/** Anything that the browser itself complains about. */
export function complaints(page: Page): string[] {
  const said: string[] = [];
  page.on('pageerror', (error) => said.push(error.message));
  page.on('console', (message) => {
    // Before the login a 401 is what should come, and a control plane that restarts refuses connections.
    const expected = /401|ERR_|502|503/.test(message.text());
    if (message.type() === 'error' && !expected) said.push(message.text());
  });
  return said;
}
