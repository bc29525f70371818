// Numbers and times in words.

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "u"]];

// As `si` in common/fedaq/process/terminal.py.
export function si(value, unit) {
  for (const [factor, prefix] of PREFIXES) {
    if (Math.abs(value) >= 0.9995 * factor) return `${(value / factor).toPrecision(3)} ${prefix}${unit}`;
  }
  return value ? `${Number((value / 1e-9).toPrecision(3))} n${unit}` : `0 ${unit}`;
}

export const missing = (value) => value === null || value === undefined;

export const percent = (share) => (missing(share) ? "–" : `${(100 * share).toFixed(2)} %`);

// As short as a tick of an axis should be.
export const percentTick = (share) => `${Number((100 * share).toFixed(2))} %`;
export const numberTick = (value) => String(Number(value.toPrecision(4)));
export const siTick = (unit) => (value) => {
  const [number, name] = si(value, unit).split(" ");
  return `${Number(number)} ${name}`;
};

export const fixed = (digits) => (value) => (missing(value) ? "–" : value.toFixed(digits));

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const ago = (seconds) => (seconds < 1 ? "now" : `${duration(seconds)} ago`);

export function date(seconds) {
  return new Date(1000 * seconds).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
