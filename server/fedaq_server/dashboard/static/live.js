// The run that goes on: its state as the server's events build it up, and its view.

import { ago, count, duration, fixed, isBetter, metricFormat, missing, numberTick, si, siTick } from "./format.js";
import { AT, Chart, Settings, column, html, useEffect, useState } from "./ui.js";

const EMPTY = { run: null, status: null, points: [], forecast: null, clients: {}, counts: null, turned_away: [], trouble: "", client_metrics: "", skew: 0 };
// A browser gives up where the server answers with an error; then this page tries again itself.
const RETRY_MS = 3000;
const PAGE = 100;
// Points that are kept of a long run.
const MOST = 1000, LATEST = 250;

const bestOf = (points, metric) => points.reduce((found, each) => (isBetter(metric, each[AT.metric], found[AT.metric]) ? each : found));

// Of too many points, keep the old ones in even steps only, as the server does (live.py), and the best.
export function bounded(points, metric) {
  if (points.length <= MOST) return points;
  const step = 2 ** (32 - Math.clz32(Math.floor(points.at(-1)[AT.round] / (2 * LATEST))));
  const best = bestOf(points, metric);
  const old = points.slice(0, -LATEST).filter((point) => point[AT.round] % step === 0 || point === best);
  return [...old, ...points.slice(-LATEST)];
}

function merged(state, message) {
  const next = message.run ? { ...EMPTY, run: message.run, skew: Date.now() / 1000 - message.at } : { ...state };
  if (message.points) next.points = bounded([...next.points, ...message.points], next.run.metric);
  for (const name of ["status", "forecast", "counts", "turned_away", "trouble", "client_metrics"]) if (message[name] !== undefined) next[name] = message[name];
  if (message.clients) {
    next.clients = { __proto__: null, ...next.clients };  // a client may be named __proto__
    for (const [name, values] of Object.entries(message.clients)) {
      if (values === null) delete next.clients[name];
      else next.clients[name] = { ...next.clients[name], ...values };
    }
  }
  return next;
}

export const isOver = (state) => ["over", "stopped"].includes(state.status?.phase);

// Follow the run; returns its state, and how the connection is: live, lost or ended.
export function useRun(first) {
  const [state, setState] = useState(EMPTY);
  const [connection, setConnection] = useState("opening");
  useEffect(() => {
    let source, timer, current = EMPTY, ended = false;
    const open = () => {
      source = new EventSource(`/events?clients=${first}`);
      source.onmessage = ({ data }) => {
        current = merged(current, JSON.parse(data));
        ended = isOver(current);
        setState(current);
        setConnection(ended ? "ended" : "live");
        if (ended) source.close();
      };
      source.onerror = () => {
        if (ended) return;
        setConnection("lost");
        if (source.readyState !== EventSource.CLOSED) return;
        timer = setTimeout(again, RETRY_MS);
      };
    };
    const again = async () => {
      // Another token since then: the server shows its form.
      const answer = await fetch("/api/runs").catch(() => null);
      if (answer?.status === 401) location.reload();
      else open();
    };
    open();
    return () => { clearTimeout(timer); source.close(); };
  }, [first]);
  return [state, connection];
}

function headline({ status, run, clients }) {
  if (status.phase === "waiting") {
    return `Waiting for ${status.wanted - status.ready} of ${count(status.wanted, "client")}`;
  }
  if (status.phase === "over") return `Over after ${count(status.round, "round")}`;
  if (status.phase === "stopped") return status.round ? `Stopped after round ${status.round}` : "Stopped before the first round";
  return `Round ${status.round} of ${run.rounds}`;
}

function Hero({ state }) {
  const { run, status, points } = state;
  const done = points.length ? points.at(-1)[AT.round] : 0;
  const recent = column(points.slice(-5), "seconds");
  const mean = recent.reduce((sum, value) => sum + value, 0) / recent.length;
  const left = run.rounds - done;
  const going = status.phase === "training" && recent.length > 0;
  return html`<section class="hero">
    <p class="eyebrow">${run.task} <i>·</i> scheme ${run.scheme} <i>·</i> ${count(run.clients, "client")} <i>·</i> ${run.parameters.toLocaleString()} parameters</p>
    <h1 class=${status.phase}>${headline(state)}</h1>
    <p class="pace">${going
      ? `${duration(mean)} a round, about ${duration(mean * left)} left`
      : status.phase === "waiting" ? `${status.ready ? `${count(status.ready, "client")} joined so far` : "Nobody has joined so far"}; round ${status.round} of ${run.rounds} begins once all are there`
      : done ? `its results are in ${run.id}` : "the first round is going on"}</p>
    <progress max=${run.rounds} value=${status.phase === "over" ? run.rounds : done} aria-label="Rounds that are done"></progress>
  </section>`;
}

function Tile({ name, value, unit, children }) {
  return html`<section class="card tile"><h2>${name}</h2><p class="value">${value}${unit && html` <small>${unit}</small>`}</p><p class="sub">${children}</p></section>`;
}

function Tiles({ state }) {
  const { points, run, forecast } = state;
  const point = points.at(-1);
  const shown = metricFormat(run.metric);
  const best = bestOf(points, run.metric);
  const spent = point[AT.energy_j];
  return html`<div class="tiles">
    <${Tile} name=${`Test ${run.metric.name}`} value=${shown.value(point[AT.metric])}>best ${shown.value(best[AT.metric])} in round ${best[AT.round]}<//>
    <${Tile} name="Energy" value=${si(spent, "J")}><${EnergyWords} spent=${spent} budget=${run.budget_j} forecast=${forecast} over=${isOver(state)}/><//>
    <${Tile} name="Uplink" value=${fixed(2)(point[AT.uplink_bits])} unit="bits/value">${si(point[AT.uplink_bytes], "B")} so far<//>
    <${Tile} name="Downlink" value=${fixed(2)(point[AT.downlink_bits])} unit="bits/value">${si(point[AT.downlink_bytes], "B")} so far<//>
    ${run.epsilon && html`<${Tile} name="Epsilon" value=${point[AT.epsilon].toPrecision(3)}>of ${run.epsilon} for delta ${run.delta}<//>`}
  </div>`;
}

function EnergyWords({ spent, budget, forecast, over }) {
  if (missing(budget)) {
    return over || !forecast ? "no budget was set" : html`about ${si(forecast.energy_j, "J")} at the end, if it goes on like the last rounds`;
  }
  return html`${(100 * spent / budget).toFixed(1)} % of ${si(budget, "J")}${!over && forecast && html`, ${forecast.by === "scheme" ? "planned" : "about"} ${si(forecast.energy_j, "J")} at the end`}
    <progress class="energy" max=${budget} value=${spent} aria-label="Energy spent of the budget"></progress>`;
}

// How far the axis goes while a run is young: its curves would be slivers at one end.
const STEPS = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const reach = (done, rounds) => Math.min(rounds, STEPS.find((step) => step >= 1.1 * done) ?? rounds);

const fromZero = (low, high) => [0, (high || 1) * 1.1];

function Curves({ state }) {
  const { points, run, forecast } = state;
  const over = isOver(state);
  const xs = column(points, "round");
  const done = xs.at(-1) ?? 0;
  const end = over ? Math.max(done, 2) : Math.max(run.rounds, 2);
  const soon = over ? end : Math.max(reach(done, run.rounds), 2);
  const whole = { xs, sync: "run", whole: true, formatX: String, tickX: String, xName: "round", range: () => [1, soon], version: `${points.length} ${forecast?.energy_j} ${over} ${xs[0]}` };
  const values = (name) => column(points, name);
  const shown = metricFormat(run.metric);
  const spent = values("energy_j");
  const ahead = !over && forecast && done < run.rounds;
  const budget = run.budget_j;
  const lines = [{ label: "spent", color: "--energy", values: ahead ? [...spent, null] : spent, fill: true, last: spent.at(-1) }];
  if (!over && forecast) {
    lines.push({ label: "forecast", color: "--energy", dash: [4, 4], last: forecast.energy_j,
      values: ahead ? [...spent.map((value, place) => (place === spent.length - 1 ? value : null)), forecast.energy_j] : spent.map(() => null) });
  }
  if (!missing(budget)) {
    const flat = (ahead ? [...spent, 0] : spent).map(() => budget);
    lines.push({ label: "budget", color: "--bad", dash: [8, 4], width: 1.5, values: flat, last: budget });
  }
  return html`<div class="charts">
    <${Chart} ...${whole} title=${`Test ${run.metric.name}`} format=${shown.value} tick=${shown.tick} yRange=${shown.near} series=${[{ label: run.metric.name, color: "--metric", values: values("metric") }]}/>
    <${Chart} ...${whole} title="Loss" format=${fixed(3)} tick=${numberTick} yRange=${fromZero} series=${[
      { label: "test", color: "--loss", values: values("loss") },
      { label: "training", color: "--train", values: values("train_loss") }]}/>
    <${Chart} ...${whole} title="Bits per value" format=${fixed(2)} tick=${numberTick} yRange=${fromZero} series=${[
      { label: "downlink", color: "--down", values: values("downlink_bits") },
      { label: "uplink", color: "--up", values: values("uplink_bits") }]}/>
    <${Chart} ...${whole} xs=${ahead ? [...xs, run.rounds] : xs} title="Energy" range=${() => [1, end]} format=${(value) => si(value, "J")} tick=${siTick("J")} yRange=${fromZero} series=${lines}
      note=${!over && forecast ? (forecast.by === "scheme" ? "forecast: the scheme's plan" : "forecast: the last rounds, continued") : ""}/>
  </div>`;
}

const order = new Intl.Collator(undefined, { numeric: true }).compare;

function Client({ name, client, now }) {
  const cell = (label, value, kind = "") => html`<td data-label=${label} class=${kind}>${value}</td>`;
  const heard = missing(client.seen_at) ? "now" : ago(Math.max(0, now - client.seen_at));
  return html`<tr>
    <th scope="row">${name}${missing(client.relayed) ? null : html` <small>relay, clients: ${client.relayed}</small>`}</th>
    <td class="state"><span class=${`dot ${client.state.replace(" ", "-")}`}></span>${client.state}</td>
    ${cell("Radio", html`${client.radio && html`${client.radio} <small>${si(client.j_per_bit, "J")}/bit</small>`}`)}
    ${cell("Uplink bits/value", fixed(2)(client.uplink_bits), "number")}
    ${cell("Sent", si(client.uplink_bytes, "B"), "number")}
    ${cell("Received", si(client.downlink_bytes, "B"), "number")}
    ${cell("Last seen", heard, "number")}
    ${cell(client.refusals || client.reason ? "Refusals" : null, html`<span class=${client.refusals ? "refused" : ""}>${client.refusals}</span>${client.reason && html`<span class="reason">${client.reason}</span>`}`, "refusals")}
  </tr>`;
}

function Clients({ state, first, setFirst }) {
  const now = useNow(state.skew);
  const names = Object.keys(state.clients).sort(order);
  const counts = state.counts ?? names.reduce((sums, name) => ({ ...sums, [state.clients[name].state]: (sums[state.clients[name].state] ?? 0) + 1 }), {});
  const total = Object.values(counts).reduce((sum, value) => sum + value, 0);
  return html`<section class="card clients">
    <header><h2 id="clients">Clients</h2><ul class="counts">${Object.entries(counts).map(([name, value]) => html`<li key=${name}><span class=${`dot ${name.replace(" ", "-")}`}></span>${value} ${name}</li>`)}</ul></header>
    ${names.length === 0 ? html`<p class="nobody">Nobody has joined yet. On each client:<br/><code>fedaq client --server HOST:PORT --task ${state.run.task}</code></p>` : html`<div class="scroll" tabindex="0" role="region" aria-labelledby="clients"><table>
      <thead><tr>${["Name", "State", "Radio", "Uplink bits/value", "Sent", "Received", "Last seen", "Refusals"].map((name) => html`<th scope="col" key=${name} class=${{ Name: "", State: "", Radio: "", Refusals: "refusals" }[name] ?? "number"}>${name}</th>`)}</tr></thead>
      <tbody>${names.map((name) => html`<${Client} key=${name} name=${name} client=${state.clients[name]} now=${now}/>`)}</tbody>
    </table></div>`}
    ${total > PAGE && html`<nav class="pages" aria-label="Clients">
      <button disabled=${first === 0} onClick=${() => setFirst(Math.max(0, first - PAGE))}>Earlier names</button>
      <span>${first + 1} to ${Math.min(first + PAGE, total)} of ${total}</span>
      <button disabled=${first + PAGE >= total} onClick=${() => setFirst(first + PAGE)}>Later names</button></nav>`}
  </section>`;
}

function useNow(skew) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, []);
  return now - skew;
}

// Who is not among the clients, and why.
function TurnedAway({ state }) {
  const now = useNow(state.skew);
  if (!state.turned_away.length) return null;
  return html`<section class="card away"><h2>Turned away lately</h2>
    <ul>${[...state.turned_away].reverse().map((each) => html`<li key=${each.at + each.peer}><b>${each.peer}</b> <span>${each.times > 1 && `${each.times} times, last `}${ago(Math.max(0, now - each.at))}</span><p>${each.reason}</p></li>`)}</ul>
  </section>`;
}

export function Live({ state, first, setFirst }) {
  if (!state.run) return html`<main class="empty"><h1>One moment</h1><p>The server is asked for its run.</p></main>`;
  return html`<main>
    <${Hero} state=${state}/>
    ${state.trouble && html`<p class="card trouble" role="alert">${state.trouble}</p>`}
    ${state.client_metrics && html`<p class="pace">Mean of clients' own tests: ${state.client_metrics}</p>`}
    ${state.points.length > 0 && html`<${Tiles} state=${state}/><${Curves} state=${state}/>`}
    <${Clients} state=${state} first=${first} setFirst=${setFirst}/>
    <${TurnedAway} state=${state}/>
    <${Settings} title="Settings of this run" settings=${state.run.settings}/>
  </main>`;
}
