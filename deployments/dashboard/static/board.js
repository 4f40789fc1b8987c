// Board: the metrics of the running graph, every two seconds; rates and percentiles are computed here.

import { $, bar, call, dollars, h, notice, number, onKey, percent, seconds, start } from "./common.js";
import { chart, legend } from "./charts.js";
import { TimeLine } from "./history.js";
import { by, each, mean, quantile, sum } from "./metrics.js";
import { canary, choices, onlyWith, plans, times } from "./panels.js";

const EVERY_MS = 2000;
const STAGE = "to_router_stage_seconds", FIRST = { stage: "first_byte" }, WHOLE = { stage: "whole" };
// Outcomes of attempts that a working expert has too.
const HARMLESS = new Set(["answered", "overloaded", "ineligible"]);
let known = new TimeLine(), timer = null, paused = false, alarms = "";

async function update() {
  clearTimeout(timer);
  if (document.hidden || paused) return;
  try {
    known.take(await (await call(known.needsHistory ? "page/data/board?history=1" : "page/data/board")).json());
    show();
    notice("");
  } catch (error) {
    if (error.status === 401) { clear("a key is required"); return; }
    $("state").textContent = "showing the last metrics: the server does not respond";
    if (error.status) notice(error.message);
  }
  timer = setTimeout(update, EVERY_MS);
}

function clear(why) {
  known = new TimeLine();
  for (const id of ["tiles", "money", "ends", "chart-rate", "chart-wait"]) $(id).replaceChildren();
  $("experts").tBodies[0].replaceChildren();
  $("state").textContent = why;
}

function show() {
  const { now } = known, choice = $("window").value;
  const begin = choice === "all" ? known.start : now.at - Number(choice);
  const { from, samples } = known.since(begin);
  const elapsed = now.at - from, levels = [...now.series.values()];
  const clock = new Date(now.at * 1000).toLocaleTimeString();
  $("state").textContent = elapsed ? `${clock}, over ${ago(elapsed)}` : `${clock}, counting started`;
  $("since").textContent = new Date(known.start * 1000).toLocaleString();
  Object.assign(document.body.dataset, { views: known.views.length, from, at: now.at });
  const names = Object.keys(now.experts);
  onlyWith(sum(known.since(known.start).samples, "to_router_requests_total"));
  tiles(samples, levels, elapsed);
  experts(now, samples, levels, elapsed);
  money(samples);
  ends(samples);
  choices(samples);
  plans(now.plans, samples);
  times(names, samples);
  canary(levels, samples);
  charts(begin);
  showAlarms(now, levels);
}

const ago = (span) => (span < 120 ? `${span.toFixed(0)} s` : span < 7200 ? `${number(span / 60, 2)} min` : `${number(span / 3600, 2)} h`);

const tile = (id, name, value, raw, small) => h("div", {}, h("dt", {}, name), h("dd", { id, "data-value": raw === null ? "" : raw }, value, small ? h("small", {}, small) : null));

function wait(id, name, grown, where, q) {
  const at = quantile(grown, STAGE, where, q);
  const bounds = at ? (at.high === Infinity ? `above ${seconds(at.low)}` : `${seconds(at.low)} to ${seconds(at.high)}`) : "no request yet";
  return tile(id, name, at ? seconds(at.value) : "–", at ? at.value : null, bounds);
}

function tiles(grown, levels, elapsed) {
  const count = sum(grown, "to_router_requests_total");
  const rate = elapsed ? count / elapsed : null;
  const average = mean(grown, STAGE, WHOLE);
  $("tiles").replaceChildren(
    tile("rate", "Requests per second", number(rate), rate, `${number(count, 6)} in this window`),
    wait("first-p50", "First byte, p50", grown, FIRST, 0.5),
    wait("first-p95", "First byte, p95", grown, FIRST, 0.95),
    wait("whole-p50", "End to end, p50", grown, WHOLE, 0.5),
    wait("whole-p95", "End to end, p95", grown, WHOLE, 0.95),
    tile("whole-mean", "End to end, mean", seconds(average), average, "exact"),
    tile("in-flight", "In flight", number(sum(levels, "to_router_in_flight")), sum(levels, "to_router_in_flight"), `${number(sum(levels, "to_router_queued"))} queued`),
  );
}

function replicas(state) {
  if (state.running === null) return "elsewhere";
  const parts = [`${state.running} running`];
  if (state.starting) parts.push(`${state.starting} starting`);
  if (state.stopping) parts.push(`${state.stopping} stopping`);
  if (state.scaled_to_zero) parts.push("scaled to zero, starts with the next request");
  return parts.join(", ");
}

function breaker(levels, name) {
  const states = each(levels, "to_router_breaker_state", { expert: name });
  const open = states.filter((state) => state === 1).length, half = states.filter((state) => state === 0.5).length;
  if (open) return { text: `open on ${open} of ${states.length} ingress replicas`, bad: true };
  if (half) return { text: "half open: the next request is a probe", bad: true };
  return { text: "closed", bad: false };
}

// A row of the table; on a phone its cells are below each other, so each has its role and heading.
function row(attributes, ...cells) {
  const heads = [...$("experts").tHead.rows[0].cells].map((head) => head.textContent);
  return h("tr", { ...attributes, role: "row" }, ...cells.map((cell, i) => (i
    ? h("td", { role: "cell", "data-label": heads[i] }, ...cell)
    : h("th", { role: "rowheader", scope: "row" }, ...cell))));
}

function experts(now, grown, levels, elapsed) {
  const answered = by(grown, "to_router_decisions_total", "expert");
  const all = [...answered.values()].reduce((a, b) => a + b, 0);
  const rows = Object.entries(now.experts).map(([name, state]) => {
    const mine = answered.get(name) || 0, share = all ? mine / all : NaN;
    const tries = by(grown, "to_router_attempts_total", "outcome", { expert: name });
    const failed = [...tries].filter(([outcome, count]) => outcome !== "answered" && count > 0);
    const observed = sum(grown, "to_router_cost_usd_total", { expert: name, kind: "observed" });
    const predicted = sum(grown, "to_router_cost_usd_total", { expert: name, kind: "predicted" });
    const circuit = breaker(levels, name);
    const trouble = state.ready ? null : h("div", { class: "bad" }, state.why || "not ready");
    return row({ "data-expert": name, "data-answers": mine, "data-share": all ? share : "", "data-observed": observed, "data-predicted": predicted },
      [name, state.description ? h("small", { class: "muted" }, ` ${state.description}`) : null, trouble],
      [percent(share), bar(share, "own")],
      [number(elapsed ? mine / elapsed : null)],
      [replicas(state)],
      [h("span", { class: circuit.bad ? "breaker bad" : "breaker" }, circuit.text)],
      [failed.length ? h("span", { class: failed.some(([outcome]) => !HARMLESS.has(outcome)) ? "bad" : "" }, failed.map(([outcome, count]) => `${outcome.replaceAll("_", " ")} ${count}`).join(", ")) : "none"],
      [dollars(observed)],
      [predicted ? number(observed / predicted) : "–"]);
  });
  const body = $("experts").tBodies[0];
  body.replaceChildren(...rows);
}

function money(grown) {
  const spent = sum(grown, "to_router_cost_usd_total", { kind: "observed" });
  const mostExpensive = sum(grown, "to_router_baseline_usd_total", { baseline: "most_expensive" });
  const single = sum(grown, "to_router_baseline_usd_total", { baseline: "best_single" });
  const top = Math.max(spent, mostExpensive, single);
  const best = known.now.best_single;
  const line = (id, name, value, against) => [
    h("dt", {}, name),
    h("dd", { id, "data-value": value }, dollars(value), against && value ? h("small", {}, `routing saved ${percent(1 - spent / value)} of it`) : null, bar(top ? value / top : 0, against ? "" : "own")),
  ];
  $("money").replaceChildren(
    ...line("spent", "Spent", spent, false),
    ...line("most-expensive", "Always the most expensive expert", mostExpensive, true),
    ...line("single", `Always the best single expert${best ? ` (${best})` : ""}`, single, true),
  );
}

function ends(grown) {
  const outcomes = [...by(grown, "to_router_requests_total", "outcome")].filter(([, count]) => count).sort();
  const rejected = [...by(grown, "to_router_refused_total", "code")].filter(([, count]) => count);
  const total = rejected.reduce((all, [, count]) => all + count, 0);
  $("ends").replaceChildren(
    tile("refused", "Rejected (429, 503)", number(total, 6), total, rejected.map(([code, count]) => `${code} ${count}`).join(", ") || "none"),
    ...outcomes.map(([outcome, count]) => tile(`end-${outcome.replace(/\W/g, "-")}`, outcome === "200" ? "Succeeded (200)" : outcome, number(count, 6), count, null)),
  );
}

function charts(begin) {
  const { now } = known, rate = [], p50 = [], p95 = [];
  const span = Math.max(30, now.at - begin), unit = span < 300 ? 1 : span < 7200 ? 60 : 3600;
  for (const { a, b, samples } of known.intervals(begin)) {
    const x = (b - now.at) / unit;
    rate.push([x, sum(samples, "to_router_requests_total") / (b - a)]);
    for (const [points, q] of [[p50, 0.5], [p95, 0.95]]) {
      const at = quantile(samples, STAGE, FIRST, q);
      if (at) points.push([x, at.value]);
    }
  }
  const x = { name: `${{ 1: "seconds", 60: "minutes", 3600: "hours" }[unit]} ago`, range: [-span / unit, 0], format: (at) => number(-at) };
  const latest = (points) => (points.length ? number(points[points.length - 1][1]) : "nothing yet");
  chart($("chart-rate"), [{ points: rate, kind: "line", color: 0 }], { title: `Requests per second over time, now ${latest(rate)}`, x, y: { zero: true } });
  const waits = [{ name: "p50", points: p50, kind: "line", color: 0 }, { name: "p95", points: p95, kind: "line", color: 1 }];
  $("legend-wait").replaceChildren(legend(waits));
  chart($("chart-wait"), waits,
    { title: `Seconds to the first byte over time, p50 now ${latest(p50)}, p95 ${latest(p95)}`, x, y: { zero: true } });
}

// A screen reader announces the line only when it changes.
function showAlarms(now, levels) {
  const lines = [];
  if (!now.router.ready) lines.push(`router: ${now.router.why}`);
  for (const [name, state] of Object.entries(now.experts)) {
    const circuit = breaker(levels, name);
    if (!state.ready) lines.push(`${name} is not ready: ${state.why}`);
    else if (circuit.bad) lines.push(`${name}: circuit breaker ${circuit.text}`);
  }
  const line = lines.join(". ");
  if (line !== alarms) { alarms = line; $("news").textContent = line; $("news").className = line ? "live bad" : "live"; }
}

start();
$("window").addEventListener("change", () => { if (known.views.length) show(); });
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  update();
});
document.addEventListener("visibilitychange", update);
onKey(update);
update();
