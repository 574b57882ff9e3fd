// The fleet as the control plane tells it: one stream, a snapshot first, then what changes. It
// outlives a restart of the control plane: the page keeps what it knew, says since when it is old,
// and takes a new snapshot as soon as there is one.

import type { Deployment, DeviceView, EventView, FeedChange, FeedSnapshot, FreezeView } from '../types';
import { api, asFailure } from './client';
import { clock } from './clock.svelte';
import { session } from './session.svelte';

export type Link = { is: 'connecting' } | { is: 'live' } | { is: 'reconnecting'; sinceMs: number };

const EVENTS_KEPT_MAX = 500;
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 5000;
/** Silence after which the page asks whether anybody is still there: a stream can die unnoticed. */
const QUIET_MAX_MS = 20_000;

class Feed {
  link = $state<Link>({ is: 'connecting' });
  /** False until the first snapshot. */
  known = $state(false);
  /** Counts snapshots: whoever keeps a history of their own has a gap after each. */
  snapshots = $state(0);
  atMs = $state(0);
  devices = $state.raw<DeviceView[]>([]);
  deployments = $state.raw<Deployment[]>([]);
  events = $state.raw<EventView[]>([]);
  frozen = $state.raw<FreezeView[]>([]);
  restored = $state<string | null>(null);
  fleet = $state<string | null>(null);
  version = $state('');

  #source: EventSource | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #retryMs = RETRY_FIRST_MS;

  open(): void {
    this.close();
    const source = new EventSource('/api/v1/feed');
    this.#source = source;
    source.addEventListener('snapshot', (message) => this.#snapshot(JSON.parse(message.data)));
    source.addEventListener('change', (message) => this.#change(JSON.parse(message.data)));
    // The browser would try again by itself, but not after an answer such as 401 or 502, and it does
    // not say which it was.
    source.addEventListener('error', () => this.#lost());
    this.#watch();
  }

  close(): void {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#timer);
  }

  /** After a logout: the next person starts with an empty page. */
  forget(): void {
    this.close();
    this.known = false;
    this.link = { is: 'connecting' };
    this.devices = [];
    this.deployments = [];
    this.events = [];
    this.frozen = [];
    this.restored = null;
  }

  #snapshot(told: FeedSnapshot): void {
    this.devices = merged([], told.devices, [], deviceKey);
    this.deployments = merged([], resources(told), [], deploymentKey);
    this.events = told.events;
    this.frozen = told.frozen;
    this.restored = told.restored ?? null;
    this.fleet = told.fleet ?? null;
    this.version = told.version;
    this.known = true;
    this.snapshots += 1;
    this.#heard(told.atMs);
  }

  #change(told: FeedChange): void {
    this.devices = merged(this.devices, told.devices, told.devicesGone, deviceKey);
    this.deployments = merged(this.deployments, resources(told), told.deploymentsGone, deploymentKey);
    if (told.events.length > 0) this.events = [...told.events, ...this.events].slice(0, EVENTS_KEPT_MAX);
    this.frozen = told.frozen;
    this.restored = told.restored ?? null;
    this.#heard(told.atMs);
  }

  #heard(atMs: number): void {
    this.atMs = atMs;
    clock.set(atMs);
    this.#retryMs = RETRY_FIRST_MS;
    this.link = { is: 'live' };
    this.#watch();
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#isAnybodyThere(), QUIET_MAX_MS);
  }

  async #isAnybodyThere(): Promise<void> {
    const source = this.#source;
    const here = await isHere();
    // Something else may have happened to the stream meanwhile.
    if (source !== this.#source || source === null) return;
    if (here) this.#watch();
    else this.#lost();
  }

  #lost(): void {
    this.close();
    if (this.link.is !== 'reconnecting') this.link = { is: 'reconnecting', sinceMs: clock.nowMs };
    this.#timer = setTimeout(() => void this.#again(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  async #again(): Promise<void> {
    const here = await isHere();
    if (session.state.is !== 'in') return;
    if (here) this.open();
    else this.#lost();
  }
}

/** Whether the control plane answers. A session that it does not know any more ends here. */
async function isHere(): Promise<boolean> {
  try {
    await api.session();
    return true;
  } catch (error) {
    return asFailure(error).status === 401;
  }
}

const resources = (told: FeedSnapshot | FeedChange) => told.deployments.map((live) => live.resource);
const deviceKey = (device: DeviceView) => device.id;
const deploymentKey = (deployment: Deployment) => deployment.metadata.name;

function merged<T>(before: T[], changed: T[], gone: string[], key: (item: T) => string): T[] {
  if (changed.length === 0 && gone.length === 0) return before;
  const all = new Map(before.map((item) => [key(item), item]));
  for (const item of changed) all.set(key(item), item);
  for (const name of gone) all.delete(name);
  return [...all.values()].sort((a, b) => key(a).localeCompare(key(b), 'en', { numeric: true }));
}

export const feed = new Feed();
