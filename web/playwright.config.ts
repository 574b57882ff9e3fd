import { defineConfig } from '@playwright/test';

// `cargo xtask test` and `cargo xtask screenshots` start a control plane and three agents and say
// where they are; see xtask/src/dashboard.rs.
export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  // One fleet for all: what happens to it happens in order.
  workers: 1,
  fullyParallel: false,
  timeout: 120_000,
  expect: { timeout: 60_000 },
  reporter: 'list',
  use: {
    baseURL: process.env.MUSTER_PAGE,
    viewport: { width: 1440, height: 900 },
    reducedMotion: 'reduce',
    screenshot: 'only-on-failure',
    trace: 'retain-on-failure',
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      // Where tests run as root there is no sandbox to be had; the page comes from this machine.
      args: ['--no-sandbox'],
    },
  },
});
