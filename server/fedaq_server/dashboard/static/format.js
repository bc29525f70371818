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

const number = (value) => (missing(value) ? "–" : value.toPrecision(4));

// As short as a tick of an axis should be.
export const percentTick = (share) => `${Number((100 * share).toFixed(2))} %`;
export const numberTick = (value) => String(Number(value.toPrecision(4)));
export const siTick = (unit) => (value) => {
  const [number, name] = si(value, unit).split(" ");
  return `${Number(number)} ${name}`;
};

// How a task's metric is written, and its axis: an accuracy is a share, any other a number.
export const metricFormat = ({ name }) => (name === "accuracy"
  ? { value: percent, tick: percentTick, near: (low, high) => inside(0, 1, padded(low, high, 0.002)) }
  : { value: number, tick: numberTick, near: (low, high) => padded(low, high, Math.abs(high) * 0.01 || 0.01) });

const padded = (low, high, least) => {
  const pad = Math.max((high - low) * 0.1, least);
  return [low - pad, high + pad];
};
const inside = (least, most, [low, high]) => [Math.max(least, low), Math.min(most, high)];

// Whether one value of a metric is better than another; any is better than none.
export function isBetter(metric, one, other) {
  if (missing(one) || missing(other)) return missing(other) && !missing(one);
  return metric.higher_is_better ? one > other : one < other;
}

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
