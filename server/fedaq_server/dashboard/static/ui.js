// Preact, and the pieces that both views are made of.

import { h, render } from "./vendor/preact.mjs";
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
export { h, render, useEffect, useRef, useState };
export { useMemo } from "./vendor/hooks.mjs";

// The places of a point's values (POINT_FIELDS in live.py).
const FIELDS = ["round", "metric", "loss", "train_loss", "uplink_bits", "downlink_bits", "energy_j",
  "uplink_bytes", "downlink_bytes", "clients", "left_out", "seconds", "epsilon"];
export const AT = Object.fromEntries(FIELDS.map((name, place) => [name, place]));
export const column = (points, name) => points.map((point) => point[AT[name]]);

export function useMedia(query) {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const change = () => setMatches(media.matches);
    media.addEventListener("change", change);
    return () => media.removeEventListener("change", change);
  }, [query]);
  return matches;
}

export function Settings({ settings, title }) {
  return html`<details class="card settings">
    <summary>${title}</summary>
    <dl>${Object.entries(settings).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </details>`;
}

// ---- Charts -----------------------------------------------------------------

const few = 12;

function options(node, props, width, onIndex) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const font = `12px ${style.getPropertyValue("--font")}`;
  const axis = { stroke: color("--muted"), font, grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const points = { show: props.xs.length <= few, size: 6 };
  return {
    width,
    height: props.height ?? 220,
    padding: [12, 16, 0, 0],
    legend: { show: false },
    cursor: {
      sync: props.sync ? { key: props.sync } : undefined,
      points: { size: 8 },
      drag: { x: false, y: false },
    },
    scales: {
      x: { time: false, distr: props.log ? 3 : 1, range: () => props.range() },
      y: { range: (plot, low, high) => props.yRange(low, high) },
    },
    axes: [
      { ...axis, size: 24, gap: 6, values: (plot, ticks) => ticks.map((tick) => (tick === null ? "" : props.tickX(tick))), incrs: props.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000, 100000] : undefined },
      { ...axis, size: 58, values: (plot, ticks) => ticks.map((tick) => props.tick(tick)) },
    ],
    series: [{}, ...props.series.map((each) => ({
      stroke: color(each.color),
      width: each.width ?? 2,
      dash: each.dash,
      fill: each.fill ? `${color(each.color)}1f` : undefined,
      points: each.dash || each.fill ? { show: false } : { ...points, fill: color("--card") },
      spanGaps: true,
    }))],
    hooks: { setCursor: [(plot) => onIndex(plot.cursor.idx ?? null)] },
  };
}

// Title, readout (at the cursor, or the last values), and the curves.
export function Chart(props) {
  const place = useRef(null);
  const plot = useRef(null);
  const [index, setIndex] = useState(null);
  const dark = useMedia("(prefers-color-scheme: dark)");
  const { title, note, xs, series, format, formatX, xName } = props;
  const shape = `${dark} ${xs.length <= few} ${props.log} ${series.map((each) => each.label + each.color).join()}`;
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    const node = place.current;
    const live = { ...props, yRange: (...ends) => latest.current.yRange(...ends), range: () => latest.current.range() };
    plot.current = new uPlot(options(node, live, node.clientWidth, setIndex), [xs, ...series.map((each) => each.values)], node);
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: node.clientWidth, height: props.height ?? 220 }));
    sizes.observe(node);
    return () => { sizes.disconnect(); plot.current.destroy(); plot.current = null; };
  }, [shape]);
  useEffect(() => { plot.current?.setData([xs, ...series.map((each) => each.values)]); }, [props.version]);
  const shown = index !== null && index < xs.length ? index : null;
  const readings = series.map((each) => ({ ...each, value: shown === null ? each.last ?? last(each.values) : each.values[shown] }));
  const words = readings.map((each) => `${each.label} ${text(each.value, format)}`).join(", ");
  return html`<section class="card chart">
    <header><h2>${title}</h2>${note && html`<span class="note">${note}</span>`}</header>
    <ul class="readout">${readings.map((each) => html`<li key=${each.label}>
      <svg class="swatch" width="18" height="8" aria-hidden="true"><line x1="1" y1="4" x2="17" y2="4" stroke-dasharray=${each.dash ? "4 3" : "none"} class=${`stroke${each.color}`}/></svg>
      ${each.label} <b>${text(each.value, format)}</b></li>`)}
      <li class="where">${shown === null ? "" : `${xName} ${formatX(xs[shown])}`}</li></ul>
    <div class="plot" ref=${place} role="img" aria-label=${`${title}: ${words}`}></div>
  </section>`;
}

const last = (values) => values.findLast((value) => value !== null && value !== undefined);
const text = (value, format) => (value === null || value === undefined ? "–" : format(value));
