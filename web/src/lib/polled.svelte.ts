// What the stream does not carry: asked for while somebody looks at it, and again from time to time.

import { asFailure, type Failure } from './client';

const PERIOD_MS = 5000;

export class Polled<T> {
  value = $state.raw<T | null>(null);
  failure = $state<Failure | null>(null);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #run = 0;

  /** Asks now and then; the answer ends it, and belongs in an `$effect`. */
  start(ask: () => Promise<T>): () => void {
    const run = ++this.#run;
    const again = async () => {
      // A page in the background asks nothing.
      if (!document.hidden) await this.#ask(ask, run);
      if (run === this.#run) this.#timer = setTimeout(() => void again(), PERIOD_MS);
    };
    void again();
    return () => {
      this.#run += 1;
      clearTimeout(this.#timer);
    };
  }

  async #ask(ask: () => Promise<T>, run: number): Promise<void> {
    try {
      const value = await ask();
      if (run !== this.#run) return;
      this.value = value;
      this.failure = null;
    } catch (error) {
      if (run === this.#run) this.failure = asFailure(error);
    }
  }
}
