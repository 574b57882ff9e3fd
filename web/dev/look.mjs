// Looks at every page as a person does: a picture of each in both themes and widths into screenshots/,
// and axe-core over each. Ends with 1 where axe or the browser's console complains.
//
//   npm run build && npm run look [-- --only device]
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import { chromium } from '@playwright/test';

const { values } = parseArgs({ options: { only: { type: 'string', default: '' } } });
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const folder = new URL('../screenshots/', import.meta.url).pathname;
mkdirSync(folder, { recursive: true });

const SCENES = {
  calm: { fleet: '#/', deployments: '#/deployments', deployment: '#/deployments/digits', device: '#/devices/edge-1', events: '#/events', unknown: '#/nowhere' },
  frozen: { fleet: '#/', device: '#/devices/edge-1' },
  'bad-version': { fleet: '#/', deployment: '#/deployments/digits', device: '#/devices/edge-1' },
  busy: { fleet: '#/', deployments: '#/deployments', deployment: '#/deployments/linear_regression', device: '#/devices/edge-2' },
  strained: { fleet: '#/', device: '#/devices/edge-1', events: '#/events' },
  empty: { fleet: '#/', deployments: '#/deployments', events: '#/events' },
};
const SIZES = [{ width: 1440, height: 900 }, { width: 390, height: 844 }];

let faults = 0;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });

async function check(page, name) {
  // Not evaluated as a string: the page's policy forbids it, and a test must not soften the policy.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  for (const { id, help, nodes } of violations) {
    faults += 1;
    console.log(`${name}: ${id}: ${help}\n  ${nodes.map((node) => `${node.target} ${node.failureSummary?.split('\n').at(-1)}`).join('\n  ')}`);
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (overflow > 0) {
    faults += 1;
    const wide = await page.evaluate(() => [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => `${one.tagName}.${one.className}`).slice(0, 4));
    console.log(`${name}: ${overflow} px wider than the window: ${wide}`);
  }
  await page.screenshot({ path: `${folder}${name}.png`, fullPage: !name.includes('dialog') });
}

async function look(scene, pages, url, size, theme) {
  const context = await browser.newContext({ viewport: size, colorScheme: theme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  const said = (text) => {
    faults += 1;
    console.log(`${scene} ${theme} ${size.width}: ${text}`);
  };
  page.on('pageerror', (error) => said(error.message));
  // Before the login and after a wrong one, a 401 is what should come.
  page.on('console', (message) => message.type() === 'error' && !message.text().includes('401') && said(message.text()));
  const name = (what) => `${scene}-${what}-${theme}-${size.width}`;
  await page.goto(url);
  await page.getByLabel('User').waitFor();
  if (scene === 'calm') await check(page, name('login'));
  await page.getByLabel('User').fill('admin');
  if (scene === 'calm') {
    await page.getByLabel('Password').fill('wrong');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByText('is wrong').waitFor();
    await check(page, name('login-wrong'));
  }
  await page.getByLabel('Password').fill('muster');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { level: 1, name: 'Fleet' }).waitFor();
  for (const [what, hash] of Object.entries(pages)) {
    if (!what.includes(values.only)) continue;
    await page.goto(`${url}/${hash}`);
    // Long enough for what is asked for and drawn.
    await page.waitForTimeout(1500);
    await check(page, name(what));
  }
  if (scene === 'calm' && 'dialog'.includes(values.only)) {
    await page.goto(`${url}/#/deployments/digits`);
    await page.getByRole('button', { name: 'Scale…' }).click();
    await check(page, name('dialog'));
  }
  await context.close();
}

for (const [scene, pages] of Object.entries(SCENES)) {
  const plane = spawn(process.execPath, [new URL('fake-plane.mjs', import.meta.url).pathname, '--port', '0', '--scene', scene], { stdio: ['ignore', 'pipe', 'inherit'] });
  const url = await new Promise((resolve) => plane.stdout.once('data', (data) => resolve(String(data).trim())));
  for (const size of SIZES) for (const theme of ['light', 'dark']) await look(scene, pages, url, size, theme);
  plane.kill();
}
await browser.close();
console.log(faults === 0 ? 'no violation' : `${faults} faults`);
process.exit(faults === 0 ? 0 : 1);
