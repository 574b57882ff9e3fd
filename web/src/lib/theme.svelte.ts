// Light or dark: the system's, until a person chooses.

export type Theme = 'light' | 'dark';

const KEY = 'muster-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

/** Storage may be forbidden; the choice then lasts as long as the page. */
function kept(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === 'light' || value === 'dark' ? value : null;
  } catch {
    return null;
  }
}

function keep(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // See kept().
  }
}

class Themes {
  #chosen = $state<Theme | null>(kept());
  #system = $state<Theme>(system.matches ? 'dark' : 'light');
  readonly current: Theme = $derived(this.#chosen ?? this.#system);

  constructor() {
    system.addEventListener('change', () => {
      this.#system = system.matches ? 'dark' : 'light';
    });
    this.#show();
  }

  toggle(): void {
    this.#chosen = this.current === 'dark' ? 'light' : 'dark';
    keep(this.#chosen);
    this.#show();
  }

  /** The style sheet follows the system by itself; only a choice needs to be said. */
  #show(): void {
    if (this.#chosen) document.documentElement.dataset.theme = this.#chosen;
  }
}

export const themes = new Themes();
