// Policy: the card of the policy that is served, with its evaluation where there is one.

import { $, call, dollars, h, notice, number, onKey, percent, start, table } from "./common.js";
import { chart, legend } from "./charts.js";
import { preferenceWords } from "./explain.js";

const PER = 1000;

async function look() {
  let told = null;
  try {
    told = await (await call("page/data/policy")).json();
    notice("");
  } catch (error) {
    if (error.status !== 401) notice(error.message);
    return;
  }
  document.body.dataset.policy = told.policy_id || "";
  $("why").replaceChildren(...(told.why || []).map((line) => h("li", {}, line)));
  $("why").hidden = !(told.why || []).length;
  facts(told);
  curve(told);
  reliability(told.report);
  wins(told);
  experts(told);
  $("card").textContent = told.card || "The policy's folder cannot be read from here.";
}

const nothing = (place, text) => place.replaceChildren(h("p", { class: "muted" }, text));

function facts(told) {
  const manifest = told.manifest || {}, training = manifest.training || {}, report = told.report;
  const rows = [
    ["Policy", told.policy_id || "none"],
    ["Preference in use", told.preferences ? preferenceWords(told.preferences) : null],
    ["Method", manifest.router && manifest.router.name],
    ["Encoder", manifest.encoder && `${manifest.encoder.id} (${manifest.encoder.sha256.slice(0, 12)})`],
    ["Trained on", training.n_queries && `${training.n_queries} queries (data ${String(manifest.data_sha256).slice(0, 12)}, seed ${manifest.seed})`],
    ["Folder", told.folder], ["Folder written", told.written],
    ["Best single expert", told.best_single],
    ["Static ranking", told.static_ranking && told.static_ranking.join(", ")],
    ["Judged on", report && `${report.n_queries} queries, outcomes measured`],
  ].filter(([, value]) => value);
  if (report && report.quality_gain !== null) rows.push(["Quality against best single", percentPoints(report)]);
  const saved = report && report.cost_saved_at_equal_quality;
  if (saved && saved.saved !== null) rows.push(["Cost saved at equal quality", `${percent(saved.saved)} (95 %: ${saved.ci95.map(percent).join(" to ")})`]);
  if (report && report.aiq !== null) rows.push(["AIQ, zero router's AIQ", `${number(report.aiq, 4)}, ${number(report.zero_router_aiq, 4)}`]);
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

const percentPoints = (report) => `${report.quality_gain >= 0 ? "+" : ""}${percent(report.quality_gain)} at cost_weight 0 (95 %: ${report.quality_gain_ci95.map(percent).join(" to ")})`;

// Where the preference in use lies: judged itself, or the nearest weight of the curve; null where neither is known.
function inUse(told, points) {
  const said = (preferences) => JSON.stringify(Object.entries(preferences || {}).filter(([, value]) => value !== null).sort());
  const used = told.preferences || {};
  if (said(used) === said(told.report.policy.preferences)) return told.report.policy;
  if (used.cost_weight === null || used.cost_weight === undefined) return null;
  const away = (row) => Math.abs(Math.log((row.cost_weight + 1e-6) / (used.cost_weight + 1e-6)));
  return points.reduce((best, row) => (away(row) < away(best) ? row : best));
}

// From the evaluation; without one, from the policy's own out-of-fold figures, against the best single.
function curve(told) {
  const report = told.report, place = $("curve");
  $("curve-table").replaceChildren();
  if (!report) { outOfFold(told); return; }
  const at = (row) => [row.cost_usd * PER, row.quality];
  const priced = (row) => row && row.cost_usd !== null;
  const points = report.curve.filter(priced);
  if (!points.length) { nothing(place, "The outcomes carry no cost: there is no curve."); return; }
  const singles = Object.entries(report.experts).filter(([, row]) => priced(row));
  const series = [{ name: "this policy, by cost_weight", points: [...points].sort((a, b) => a.cost_usd - b.cost_usd).map(at), kind: "both", color: 0 },
    ...singles.map(([name, row], i) => ({ name: `${name} alone`, points: [at(row)], kind: "points", color: 1 + (i % 6) }))];
  if (priced(report.oracle)) series.push({ name: "oracle", points: [at(report.oracle)], kind: "points", color: 7 });
  const used = inUse(told, points);
  const marks = priced(used) ? [[...at(used), `in use: ${preferenceWords(told.preferences)}`]] : [];
  chart(place, series, { title: "Measured quality against US dollars per 1,000 queries; the table below holds the numbers", marks,
    x: { name: "US$ per 1,000 queries", format: (value) => dollars(value) }, y: { name: "quality" } });
  const rows = [...(used ? [["in use", used]] : []), ["the policy's own preference", report.policy], ...points.map((row) => [`cost_weight ${number(row.cost_weight)}`, row]), ...singles.map(([name, row]) => [`${name} alone`, row]), ["oracle", report.oracle], ["random", report.random]];
  $("curve-table").replaceChildren(legend(series), h("details", {}, h("summary", {}, "As a table"),
    table(["", "quality", "US$ per 1,000 queries"], rows.map(([name, row]) => [name, number(row.quality, 4), row.cost_usd === null ? "–" : dollars(row.cost_usd * PER)]))));
}

function outOfFold(told) {
  const found = told.manifest && told.manifest.metrics && told.manifest.metrics.out_of_fold;
  if (!found) { nothing($("curve"), "No evaluation and no out-of-fold figures are known of this policy."); return; }
  const rows = Object.entries(found).filter(([, row]) => Number.isFinite(row.saved) && Number.isFinite(row.gain));
  const series = [{ name: "this policy, out of fold", points: rows.map(([, row]) => [row.saved * 100, row.gain * 100]), kind: "points", color: 0 }, { name: "best single expert", points: [[0, 0]], kind: "points", color: 1 }];
  const used = rows.filter(([, row]) => told.preferences && row.cost_weight === told.preferences.cost_weight);
  chart($("curve"), series, { title: "Out of fold: quality gained against cost saved, both against the best single expert", marks: used.map(([, row]) => [row.saved * 100, row.gain * 100, "in use"]),
    x: { name: "% of its cost saved" }, y: { name: "quality gained, points of 100" } });
  $("curve-table").replaceChildren(legend(series), table(["", "cost_weight", "quality gained", "cost saved"], rows.map(([name, row]) => [name.replaceAll("_", " "), number(row.cost_weight), number(row.gain, 3), percent(row.saved)])));
}

function reliability(report) {
  const place = $("reliability");
  $("reliability-table").replaceChildren();
  if (!report) { nothing(place, "An evaluation is needed for this."); return; }
  const errors = table(["Expert", "Expected calibration error"], Object.entries(report.calibration || {}).map(([name, error]) => [name, number(error)]));
  if (!report.reliability) { place.replaceChildren(errors); return; }
  const series = Object.entries(report.reliability).map(([name, bins], i) => ({ name, points: bins.map((bin) => [bin.predicted, bin.observed]), kind: "both", color: i % 8 }));
  chart(place, series, { title: "Observed against predicted quality; on the diagonal they agree", diagonal: true, x: { name: "predicted quality", range: [0, 1] }, y: { name: "observed quality", range: [0, 1] } });
  $("reliability-table").replaceChildren(legend(series), h("details", {}, h("summary", {}, "As a table"), errors));
}

function wins(told) {
  const report = told.report, training = told.manifest && told.manifest.training;
  const parts = [];
  if (report && report.winners) {
    const names = told.experts;
    parts.push(h("p", { class: "muted" }, "Share of queries on which each expert is the best or as good as the best, by task, on evaluation data."),
      table(["Task", "queries", ...names], Object.entries(report.winners).map(([task, row]) => [task, row.n, ...names.map((name) => percent(row.experts[name]))])));
  }
  if (training && training.task_means) {
    parts.push(h("p", { class: "muted" }, "Mean quality of each expert by task, on training data."),
      table(["Task", ...told.experts, "best"], Object.entries(training.task_means).map(([task, means]) => [task, ...means.map((mean) => number(mean)), told.experts[means.indexOf(Math.max(...means))]])));
  }
  if (report && report.traffic) {
    parts.push(h("p", { class: "muted" }, `Share of the evaluation's queries that the policy's own preference (${preferenceWords(report.policy.preferences)}) sends to each expert.`),
      table(["Expert", "share"], Object.entries(report.traffic).map(([name, share]) => [name, percent(share)])));
  }
  if (parts.length) $("wins").replaceChildren(...parts); else nothing($("wins"), "The policy says nothing of tasks.");
}

function experts(told) {
  const means = (told.manifest && told.manifest.metrics && told.manifest.metrics.expert_means) || {};
  const windows = Object.fromEntries(((told.manifest && told.manifest.pool) || []).map((one) => [one.name, one.context_window]));
  const rows = (told.experts || []).map((name) => {
    const price = told.prices[name], judged = told.report && told.report.experts && told.report.experts[name];
    return [name, number(means[name]), judged ? number(judged.quality) : "–", price ? `$${number(price.input)} / $${number(price.output)}` : "no price", windows[name] || "–"];
  });
  $("experts").replaceChildren(table(["Expert", "quality in training", "quality in evaluation", "US$ per million tokens in / out", "context window"], rows));
}

start();
onKey(look);
look();
