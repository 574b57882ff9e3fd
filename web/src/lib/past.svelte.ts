// How one device fared: what the control plane remembers, then what the stream says.

import type { HistoryPoint } from '../types';
import type { DeviceView } from '../types';
import { api, asFailure, type Failure } from './client';

export class Past {
  points = $state.raw<HistoryPoint[]>([]);
  isLoading = $state(true);
  failure = $state<Failure | null>(null);
  #run = 0;

  async load(device: string, minutes: number): Promise<void> {
    const run = ++this.#run;
    this.isLoading = true;
    try {
      const { points } = await api.history(device, minutes);
      if (run !== this.#run) return;
      this.points = points;
      this.failure = null;
    } catch (error) {
      if (run === this.#run) this.failure = asFailure(error);
    } finally {
      if (run === this.#run) this.isLoading = false;
    }
  }

  /** Appends what the stream said of the device, and lets go what is older than is shown. */
  take(device: DeviceView, atMs: number, minutes: number): void {
    if (!device.host || !device.connected || this.isLoading) return;
    const last = this.points.at(-1)?.atMs ?? 0;
    const at = device.lastSeenMs ?? atMs;
    if (at <= last) return;
    const models = device.models.flatMap(({ deployment, version, figures }) =>
      figures ? [{ deployment, version, requestsPerSecond: figures.requestsPerSecond, p50Ms: figures.p50Ms, p99Ms: figures.p99Ms }] : [],
    );
    const { cpuPermille, memoryUsedBytes, memoryBytes } = device.host;
    const from = at - minutes * 60_000;
    this.points = [
      ...this.points.filter((point) => point.atMs >= from),
      { atMs: at, cpuPermille, memoryUsedBytes, memoryBytes, models },
    ];
  }
}
