// Past runs: a list, and those that are chosen laid over one another.

import { date, metricFormat, si, siTick } from "./format.js";
import { AT, Chart, Settings, column, html, useEffect, useMemo, useState } from "./ui.js";

const MOST = 8;
const REFRESH_MS = 10000;
const dashes = [undefined, [8, 4], [2, 3]];

const address = (id) => `/api/runs/${id.split("/").map(encodeURIComponent).join("/")}`;

async function json(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
}

function useList() {
  const [list, setList] = useState(null);
  useEffect(() => {
    const load = () => json("/api/runs").then(setList, () => setList((known) => known ?? "gone"));
    load();
    const timer = setInterval(load, REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return list;
}

// The chosen runs, whole; one that has changed is asked for again.
function useWhole(chosen) {
  const [whole, setWhole] = useState({});
  const marks = chosen.map((run) => `${run.id} ${run.modified_at} ${run.rounds}`).join("\n");
  useEffect(() => {
    let gone = false;
    for (const run of chosen) {
      if (whole[run.id]?.modified_at === run.modified_at && whole[run.id].rounds === run.rounds) continue;
      json(address(run.id)).then((all) => gone || setWhole((known) => ({ ...known, [run.id]: all })), () => {});
    }
    return () => { gone = true; };
  }, [marks]);
  return chosen.map((run) => whole[run.id]).filter(Boolean);
}

// Two pictures for each metric that the chosen runs have.
function AllCurves({ runs, places }) {
  const names = [...new Set(runs.map((run) => run.metric.name))];
  return names.map((name) => html`<${Curves} key=${name} name=${name} runs=${runs.filter((run) => run.metric.name === name)} places=${places}/>`);
}

function Curves({ name, runs, places }) {
  const curve = (run) => {
    const place = places.get(run.id);
    return { label: run.id, color: `--c${place + 1}`, dash: dashes[Math.floor(place / 3)] };
  };
  const joined = (x) => {
    const tables = runs.map((run) => [column(run.points, x), column(run.points, "metric")]);
    // Rounds that cost nothing would stand at one place.
    const steps = tables.map(([xs, ys]) => {
      const kept = xs.map((value, place) => place).filter((place) => xs[place] !== xs[place + 1] && xs[place] > 0);
      return [kept.map((place) => xs[place]), kept.map((place) => ys[place])];
    });
    return uPlot.join(steps);
  };
  const version = runs.map((run) => `${run.id} ${run.rounds}`).join();
  const [byRound, byEnergy] = useMemo(() => [joined("round"), joined("energy_j")], [version]);
  const lasts = runs.map((run) => run.points.at(-1)?.[AT.metric]);
  const ends = runs.map((run) => run.energy_j).filter((value) => value > 0);
  const log = Math.max(...ends) / Math.min(...ends) > 5;
  const shown = metricFormat({ name });
  const title = name[0].toUpperCase() + name.slice(1);
  const common = { version, height: 300, format: shown.value, tick: shown.tick, yRange: shown.near };
  const series = (table) => runs.map((run, place) => ({ ...curve(run), values: table[place + 1] ?? [], last: lasts[place] }));
  const range = ([xs], pad) => () => [(xs[0] ?? 0) / pad, Math.max((xs.at(-1) ?? 1) * pad, (xs[0] ?? 0) * 1.001)];
  return html`<div class="charts wide">
    <${Chart} ...${common} title=${`${title} over rounds`} xs=${byRound[0]} whole=${true} formatX=${String} tickX=${String} xName="round" range=${range(byRound, 1)} series=${series(byRound)}/>
    <${Chart} ...${common} title=${`${title} over joules`} note=${log ? "logarithmic" : ""} xs=${byEnergy[0]} log=${log} formatX=${(value) => si(value, "J")} tickX=${siTick("J")} xName="at" range=${range(byEnergy, log ? 1.15 : 1)} series=${series(byEnergy)}/>
  </div>`;
}

// What two runs or more do not have in common.
function Differences({ runs }) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const differing = names.filter((name) => new Set(runs.map((run) => run.settings[name])).size > 1);
  return html`<section class="card"><h2 id="differences">Where their settings differ</h2>
    ${differing.length === 0 ? html`<p class="nobody">Nowhere.</p>` : html`<div class="scroll" tabindex="0" role="region" aria-labelledby="differences"><table class="plain">
      <thead><tr><th scope="col">Setting</th>${runs.map((run) => html`<th scope="col" key=${run.id}>${run.id}</th>`)}</tr></thead>
      <tbody>${differing.map((name) => html`<tr key=${name}><th scope="row">${name}</th>${runs.map((run) => html`<td key=${run.id}>${run.settings[name] ?? "–"}</td>`)}</tr>`)}</tbody>
    </table></div>`}</section>`;
}

function Row({ run, place, full, toggle }) {
  return html`<tr class=${place === undefined ? "" : "chosen"}>
    <th scope="row"><label><input type="checkbox" checked=${place !== undefined} disabled=${full && place === undefined} onChange=${() => toggle(run.id)}/>
      <span class=${place === undefined ? "tint" : `tint c${place + 1}`}></span>${run.id}</label></th>
    <td data-label="Task">${run.task}</td><td data-label="Scheme">${run.scheme}</td>
    <td data-label="Seed" class="number">${run.seed}</td>
    <td data-label="Clients" class="number">${run.clients}</td>
    <td data-label="Rounds" class="number">${run.rounds}${run.finished ? "" : ` of ${run.of_rounds}`}</td>
    <td data-label="Metric" class="number">${run.metric.name} ${metricFormat(run.metric).value(run.value)}</td>
    <td data-label="Energy" class="number">${si(run.energy_j, "J")}</td>
    <td data-label="Written" class="number">${date(run.modified_at)}</td>
  </tr>`;
}

export function Runs({ chosen, choose }) {
  const list = useList();
  const [wanted, setWanted] = useState("");
  // A run keeps its colour while others come and go.
  const [places] = useState(() => new Map());
  const known = (Array.isArray(list) ? list : []).filter((run) => chosen.includes(run.id));
  const runs = useWhole(known);
  for (const id of [...places.keys()]) if (!chosen.includes(id)) places.delete(id);
  for (const id of chosen) {
    if (places.has(id)) continue;
    const taken = new Set(places.values());
    places.set(id, [...Array(MOST).keys()].find((place) => !taken.has(place)) ?? 0);
  }
  const toggle = (id) => choose(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  if (list === null) return html`<main class="empty"><h1>Runs</h1><p>One moment.</p></main>`;
  if (list === "gone") {
    return html`<main class="empty"><h1>The server is not there</h1><p>Once its run is over it ends. Past runs are shown by<br/><code>fedaq dashboard runs</code></p></main>`;
  }
  if (list.length === 0) {
    return html`<main class="empty"><h1>No run yet</h1><p>A run appears here with its first round.<br/><code>fedaq run --out runs/first</code> makes one.</p></main>`;
  }
  const words = wanted.toLowerCase().split(/\s+/);
  const found = list.filter((run) => words.every((word) => `${run.id} ${run.task} ${run.scheme}`.toLowerCase().includes(word)));
  return html`<main>
    <section class="hero"><p class="eyebrow">${list.length} in this folder</p><h1>Runs</h1>
      <p class="pace">${runs.length ? `${runs.length} of at most ${MOST} laid over one another` : "Choose some to lay them over one another."}</p></section>
    ${runs.length > 0 && html`<${AllCurves} runs=${runs} places=${places}/>`}
    ${runs.length > 1 && html`<${Differences} runs=${runs}/>`}
    <section class="card"><header><h2 id="list">All runs</h2>
      <input type="search" aria-label="Find runs" placeholder="Find by name, task or scheme" value=${wanted} onInput=${(event) => setWanted(event.target.value)}/></header>
      <div class="scroll" tabindex="0" role="region" aria-labelledby="list"><table>
        <thead><tr><th scope="col">Run</th><th scope="col">Task</th><th scope="col">Scheme</th>${["Seed", "Clients", "Rounds", "Metric", "Energy", "Written"].map((name) => html`<th scope="col" class="number" key=${name}>${name}</th>`)}</tr></thead>
        <tbody>${found.map((run) => html`<${Row} key=${run.id} run=${run} place=${chosen.includes(run.id) ? places.get(run.id) : undefined} full=${chosen.length >= MOST} toggle=${toggle}/>`)}</tbody>
      </table></div>
      ${found.length === 0 && html`<p class="nobody">None of them has all of these words.</p>`}</section>
    ${runs.map((run) => html`<${Settings} key=${run.id} title=${`Settings of ${run.id}`} settings=${run.settings}/>`)}
  </main>`;
}
