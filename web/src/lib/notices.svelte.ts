// Short confirmations of what a person just did, read out to those who cannot see them.

const SHOWN_MS = 6000;

class Notices {
  text = $state('');
  #timer: ReturnType<typeof setTimeout> | undefined;

  say(text: string): void {
    this.text = text;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.text = '';
    }, SHOWN_MS);
  }
}

export const notices = new Notices();
