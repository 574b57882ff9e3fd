// Numbers as text. `number` gives what the CLI gives (cli/src/tell/figures.rs): at least three
// significant digits, so that a figure is the same within 1 % wherever it is shown.

const DECIMALS_MAX = 9;

export function number(value: number): string {
  if (value === 0) return '0';
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  const decimals = Math.min(Math.max(2 - magnitude, 0), DECIMALS_MAX);
  return value.toFixed(decimals);
}

export function percent(share: number): string {
  return `${number(share * 100)} %`;
}

/** For meters, where a decimal would only flicker. */
export function wholePercent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

export function milliseconds(value: number): string {
  return `${number(value)} ms`;
}

/** Thousandths of a core: `0.50 cores`. */
export function cores(milli: number): string {
  return `${number(milli / 1000)} ${milli === 1000 ? 'core' : 'cores'}`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number): string {
  let [scaled, unit] = [value, 0];
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const decimals = unit === 0 || scaled >= 100 ? 0 : 1;
  return `${scaled.toFixed(decimals)} ${UNITS[unit]}`;
}

export function count(value: number, noun: string): string {
  return `${value} ${noun}${value === 1 ? '' : 's'}`;
}

/** `value` as `text` gives it, or a dash where nothing is known. */
export function orDash<T>(value: T | null | undefined, text: (value: T) => string): string {
  return value === null || value === undefined ? '–' : text(value);
}

/** The two largest units: `12 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit)) as [number, number, number];
  if (days > 0) return pair(days, 'd', hours % 24, 'h');
  if (hours > 0) return pair(hours, 'h', minutes % 60, 'min');
  if (minutes > 0) return pair(minutes, 'min', seconds % 60, 's');
  return `${seconds} s`;
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** The largest unit alone, for lists: `12 s`, `3 min`, `2 h`, `5 d`. */
export function roughly(ms: number): string {
  return duration(ms).split(' ').slice(0, 2).join(' ');
}
