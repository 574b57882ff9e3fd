// The processor load of each device over the last minutes, for sparklines: what the control plane
// remembers, then what the stream says.

import { api } from './client';
import { feed } from './feed.svelte';

export interface Load {
  atMs: number;
  share: number;
}

const MINUTES = 10;
const POINTS_MAX = 600;

class Loads {
  #points = $state.raw(new Map<string, Load[]>());
  #asked = new Set<string>();

  of(device: string): Load[] {
    return this.#points.get(device) ?? [];
  }

  /** Called after each message of the stream. */
  take(): void {
    const points = new Map(this.#points);
    for (const device of feed.devices) {
      if (!device.host || !device.connected) continue;
      const before = points.get(device.id) ?? [];
      const last = before.at(-1);
      const atMs = device.lastSeenMs ?? feed.atMs;
      if (last && atMs <= last.atMs) continue;
      points.set(device.id, bounded([...before, { atMs, share: device.host.cpuPermille / 1000 }]));
    }
    this.#points = points;
  }

  /** What was before the page opened; once for each device that is shown. */
  async recall(device: string): Promise<void> {
    if (this.#asked.has(device)) return;
    this.#asked.add(device);
    try {
      const history = await api.history(device, MINUTES);
      const told = history.points.map((point) => ({ atMs: point.atMs, share: point.cpuPermille / 1000 }));
      const newest = told.at(-1)?.atMs ?? 0;
      const since = this.of(device).filter((load) => load.atMs > newest);
      this.#points = new Map(this.#points).set(device, bounded([...told, ...since]));
    } catch {
      // A sparkline that begins now is no error worth a word.
    }
  }
}

function bounded(points: Load[]): Load[] {
  const last = points.at(-1)?.atMs ?? 0;
  return points.filter((point) => point.atMs > last - MINUTES * 60_000).slice(-POINTS_MAX);
}

export const loads = new Loads();
