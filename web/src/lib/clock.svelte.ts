// What time it is for the control plane: ages are differences of its clock, and this machine's may
// be wrong.

class Clock {
  #skewMs = 0;
  nowMs = $state(Date.now());

  constructor() {
    setInterval(() => this.#tick(), 1000);
  }

  /** The control plane just said that it is `planeMs`. */
  set(planeMs: number): void {
    this.#skewMs = planeMs - Date.now();
    this.#tick();
  }

  #tick(): void {
    this.nowMs = Date.now() + this.#skewMs;
  }
}

export const clock = new Clock();
