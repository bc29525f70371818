// The page: which view is shown, and how the connection is.

import { Live, isOver, useRun } from "./live.js";
import { Runs } from "./runs.js";
import { html, render, useEffect, useState } from "./ui.js";

const HAS_RUN = document.documentElement.hasAttribute("data-live");
const CONNECTIONS = { opening: "connecting", live: "live", lost: "connection lost", ended: "ended" };

// A token in the address has become a cookie.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", `/${location.hash}`);

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const chosen = new URLSearchParams(query).getAll("show");
  return { view: path === "runs" || !HAS_RUN ? "runs" : "live", chosen };
}

function choose(chosen) {
  const query = new URLSearchParams(chosen.map((id) => ["show", id])).toString();
  location.replace(`#/runs${query && `?${query}`}`);
}

function Bar({ view, connection }) {
  return html`<header class="bar"><a class="brand" href="#/"><span class="logo" aria-hidden="true"></span>fedaq</a>
    <nav aria-label="Views">
      ${HAS_RUN && html`<a href="#/" aria-current=${view === "live" ? "page" : null}>Live</a>`}
      <a href="#/runs" aria-current=${view === "runs" ? "page" : null}>Runs</a>
    </nav>
    ${HAS_RUN && html`<span class=${`connection ${connection}`}><span class="dot"></span>${CONNECTIONS[connection]}</span>`}
  </header>`;
}

function Watched({ at }) {
  const [first, setFirst] = useState(0);
  const [state, connection] = useRun(first);
  useEffect(() => {
    if (!state.run) return;
    const where = isOver(state) ? state.status.phase : `round ${state.status.round} of ${state.run.rounds}`;
    document.title = `${where} · ${state.run.task} · fedaq`;
  }, [state]);
  return html`<${Bar} view=${at.view} connection=${connection}/>
    <div role="status">${connection === "lost" && html`<p class="banner">The server does not answer. What you see is the last that was heard of it; this page goes on by itself once the server is back.</p>`}
    ${state.status?.phase === "stopped" && html`<p class="banner">The server stopped before the last round. <code>fedaq server --resume</code> goes on with the run.</p>`}</div>
    ${at.view === "live" ? html`<${Live} state=${state} first=${first} setFirst=${setFirst}/>` : html`<${Runs} chosen=${at.chosen} choose=${choose}/>`}`;
}

function Page() {
  const [at, setAt] = useState(route());
  useEffect(() => {
    const change = () => { setAt(route()); };
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  if (HAS_RUN) return html`<${Watched} at=${at}/>`;
  return html`<${Bar} view="runs"/><${Runs} chosen=${at.chosen} choose=${choose}/>`;
}

const place = document.getElementById("page");
place.replaceChildren();
render(html`<${Page}/>`, place);
