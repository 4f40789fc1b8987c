// Board: the running graph's own numbers, every two seconds; all sums are done here.

import { $, bar, call, dollars, h, notice, number, onKey, percent, seconds, start } from "./common.js";
import { chart, legend } from "./charts.js";
import { by, each, growth, mean, parse, quantile, seen, sum } from "./metrics.js";

const EVERY_MS = 2000, KEEP_S = 600;
const STAGE = "to_router_stage_seconds", FIRST = { stage: "first_byte" }, WHOLE = { stage: "whole" };
// Attempts that end so say nothing of an expert's health.
const WELL = new Set(["answered", "overloaded", "ineligible"]);
let views = [], timer = null, paused = false, alarms = "";

async function look() {
  clearTimeout(timer);
  if (document.hidden || paused) return;
  try {
    const told = await (await call("page/data/board")).json();
    if (!views.length || told.at > views[views.length - 1].at) take(told);
    notice("");
  } catch (error) {
    if (error.status === 401) { forget("a key is needed"); return; }
    $("state").textContent = "the last numbers stay: the server does not answer";
    if (error.status) notice(error.message);
  }
  timer = setTimeout(look, EVERY_MS);
}

function forget(why) {
  views = [];
  for (const id of ["tiles", "money", "ends", "chart-rate", "chart-wait"]) $(id).replaceChildren();
  $("experts").tBodies[0].replaceChildren();
  $("state").textContent = why;
}

function take(told) {
  const series = parse(told.metrics), oldest = told.at - KEEP_S - 5;
  const before = views.length ? views[views.length - 1].seen : new Map();
  views.push({ ...told, series, seen: seen(before, series, told.at, oldest), metrics: null });
  views = views.filter((view) => view.at >= oldest);
  show();
}

function show() {
  const now = views[views.length - 1];
  const span = Number($("window").value);
  const before = views.find((view) => view.at >= now.at - span - 0.5) || views[0];
  const elapsed = now.at - before.at;
  const grown = growth(before.seen, now.series), levels = [...now.series.values()];
  const clock = new Date(now.at * 1000).toLocaleTimeString();
  $("state").textContent = elapsed ? `${clock}, over ${elapsed.toFixed(0)} s` : `${clock}, counting begins`;
  Object.assign(document.body.dataset, { views: views.length, from: before.at, at: now.at });
  tiles(grown, levels, elapsed);
  experts(now, grown, levels, elapsed);
  money(grown);
  ends(grown);
  charts();
  tellAlarms(now, levels);
}

const tile = (id, name, value, raw, small) => h("div", {}, h("dt", {}, name), h("dd", { id, "data-value": raw === null ? "" : raw }, value, small ? h("small", {}, small) : null));

function wait(id, name, grown, where, q) {
  const found = quantile(grown, STAGE, where, q);
  const bounds = found ? (found.high === Infinity ? `above ${seconds(found.low)}` : `${seconds(found.low)} to ${seconds(found.high)}`) : "no request yet";
  return tile(id, name, found ? seconds(found.value) : "–", found ? found.value : null, bounds);
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
    tile("in-flight", "In flight", number(sum(levels, "to_router_in_flight")), sum(levels, "to_router_in_flight"), `${number(sum(levels, "to_router_queued"))} waiting`),
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
  if (half) return { text: "half open: the next request probes", bad: true };
  return { text: "closed", bad: false };
}

// A row of the table; on a phone its cells stand below each other, so roles and headings go along.
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
    const state_ = breaker(levels, name);
    const trouble = state.ready ? null : h("div", { class: "bad" }, state.why || "not ready");
    return row({ "data-expert": name, "data-answers": mine, "data-share": all ? share : "", "data-observed": observed, "data-predicted": predicted },
      [name, trouble],
      [percent(share), bar(share, "own")],
      [number(elapsed ? mine / elapsed : null)],
      [replicas(state)],
      [h("span", { class: state_.bad ? "breaker bad" : "breaker" }, state_.text)],
      [failed.length ? h("span", { class: failed.some(([outcome]) => !WELL.has(outcome)) ? "bad" : "" }, failed.map(([outcome, count]) => `${outcome.replaceAll("_", " ")} ${count}`).join(", ")) : "none"],
      [dollars(observed)],
      [predicted ? number(observed / predicted) : "–"]);
  });
  const body = $("experts").tBodies[0];
  body.replaceChildren(...rows);
}

function money(grown) {
  const spent = sum(grown, "to_router_cost_usd_total", { kind: "observed" });
  const dearest = sum(grown, "to_router_baseline_usd_total", { baseline: "dearest" });
  const single = sum(grown, "to_router_baseline_usd_total", { baseline: "best_single" });
  const top = Math.max(spent, dearest, single);
  const best = views[views.length - 1].best_single;
  const line = (id, name, value, against) => [
    h("dt", {}, name),
    h("dd", { id, "data-value": value }, dollars(value), against && value ? h("small", {}, `routing saved ${percent(1 - spent / value)} against it`) : null, bar(top ? value / top : 0, against ? "" : "own")),
  ];
  $("money").replaceChildren(
    ...line("spent", "Spent", spent, false),
    ...line("dearest", "Always the dearest expert", dearest, true),
    ...line("single", `Always the best single expert${best ? ` (${best})` : ""}`, single, true),
  );
}

function ends(grown) {
  const outcomes = [...by(grown, "to_router_requests_total", "outcome")].filter(([, count]) => count).sort();
  const refused = [...by(grown, "to_router_refused_total", "code")].filter(([, count]) => count);
  const total = refused.reduce((all, [, count]) => all + count, 0);
  $("ends").replaceChildren(
    tile("refused", "Refused (429, 503)", number(total, 6), total, refused.map(([code, count]) => `${code} ${count}`).join(", ") || "none"),
    ...outcomes.map(([outcome, count]) => tile(`end-${outcome.replace(/\W/g, "-")}`, outcome === "200" ? "Answered (200)" : outcome, number(count, 6), count, null)),
  );
}

function charts() {
  const last = views[views.length - 1], pairs = views.slice(1).map((view, i) => [views[i], view]);
  const rate = [], p50 = [], p95 = [];
  for (const [a, b] of pairs) {
    const grown = growth(a.seen, b.series), x = b.at - last.at;
    rate.push([x, sum(grown, "to_router_requests_total") / (b.at - a.at)]);
    for (const [points, q] of [[p50, 0.5], [p95, 0.95]]) {
      const found = quantile(grown, STAGE, FIRST, q);
      if (found) points.push([x, found.value]);
    }
  }
  const x = { name: "seconds ago", range: [Math.min(-30, views[0].at - last.at), 0], format: (at) => number(-at) };
  const tell = (points) => (points.length ? number(points[points.length - 1][1]) : "nothing yet");
  chart($("chart-rate"), [{ points: rate, kind: "line", color: 0 }], { title: `Requests per second over time, now ${tell(rate)}`, x, y: { zero: true } });
  const waits = [{ name: "p50", points: p50, kind: "line", color: 0 }, { name: "p95", points: p95, kind: "line", color: 1 }];
  $("legend-wait").replaceChildren(legend(waits));
  chart($("chart-wait"), waits,
    { title: `Seconds to the first byte over time, p50 now ${tell(p50)}, p95 ${tell(p95)}`, x, y: { zero: true } });
}

// Said aloud by screen readers only when it changes.
function tellAlarms(now, levels) {
  const told = [];
  if (!now.router.ready) told.push(`router: ${now.router.why}`);
  for (const [name, state] of Object.entries(now.experts)) {
    const found = breaker(levels, name);
    if (!state.ready) told.push(`${name} is not ready: ${state.why}`);
    else if (found.bad) told.push(`${name}: breaker ${found.text}`);
  }
  const line = told.join(". ");
  if (line !== alarms) { alarms = line; $("news").textContent = line; $("news").className = line ? "live bad" : "live"; }
}

start();
$("window").addEventListener("change", () => { if (views.length) show(); });
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  look();
});
document.addEventListener("visibilitychange", look);
onKey(look);
look();
