// Policy: the card of the policy in effect, with its evaluation where there is one.

import { $, call, dollars, h, notice, number, onKey, percent, start, table } from "./common.js";
import { chart, legend } from "./charts.js";
import { preferenceWords } from "./explain.js";

const PER = 1000;

async function update() {
  let card = null;
  try {
    card = await (await call("page/data/policy")).json();
    notice("");
  } catch (error) {
    if (error.status !== 401) notice(error.message);
    return;
  }
  document.body.dataset.policy = card.policy_id || "";
  $("why").replaceChildren(...(card.why || []).map((line) => h("li", {}, line)));
  $("why").hidden = !(card.why || []).length;
  $("prior").hidden = !card.is_prior;
  facts(card);
  curve(card);
  reliability(card.report);
  chosen(card, $("choices"));
  show("wins", wins(card));
  plans(card);
  experts(card);
  show("card", card.card ? [h("pre", { tabindex: "0", "aria-labelledby": "h-card" }, card.card)] : []);
}

// A section without content is not shown: `why` above has the reason.
function show(id, content) {
  $(id).replaceChildren(...content);
  $(id).closest("section").hidden = !content.length;
}

function facts(card) {
  const manifest = card.manifest || {}, training = manifest.training || {}, report = card.report;
  const rows = [
    ["Policy", card.policy_id || "none"],
    ["Made from", card.is_prior ? "priors: what is known of the models, before any outcome of these experts" : null],
    ["Preference in effect", card.preferences ? preferenceWords(card.preferences) : null],
    ["Method", manifest.router && manifest.router.name],
    ["Encoder", manifest.encoder && `${manifest.encoder.id} (${manifest.encoder.sha256.slice(0, 12)})`],
    ["Trained on", training.n_queries && `${training.n_queries} queries (data ${String(manifest.data_sha256).slice(0, 12)}, seed ${manifest.seed})`],
    ["Folder", card.folder], ["Folder written", card.written],
    ["Best single expert", card.best_single],
    ["Static ranking", card.static_ranking && card.static_ranking.join(", ")],
    ["Evaluated on", report && `${report.n_queries} queries with measured outcomes`],
  ].filter(([, value]) => value);
  if (report && report.quality_gain !== null) rows.push(["Quality against best single", percentPoints(report)]);
  const saved = report && report.cost_saved_at_equal_quality;
  if (saved && saved.saved !== null) rows.push(["Cost saved at equal quality", `${percent(saved.saved)} (95 %: ${saved.ci95.map(percent).join(" to ")})`]);
  if (report && report.aiq !== null) rows.push(["AIQ, zero router's AIQ", `${number(report.aiq, 4)}, ${number(report.zero_router_aiq, 4)}`]);
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

const percentPoints = (report) => `${report.quality_gain >= 0 ? "+" : ""}${percent(report.quality_gain)} at cost_weight 0 (95 %: ${report.quality_gain_ci95.map(percent).join(" to ")})`;

// The point of the preference in effect: evaluated itself, or the nearest weight of the curve; null where neither is known.
function inUse(card, points) {
  const text = (preferences) => JSON.stringify(Object.entries(preferences || {}).filter(([, value]) => value !== null).sort());
  const used = card.preferences || {};
  if (text(used) === text(card.report.policy.preferences)) return card.report.policy;
  if (used.cost_weight === null || used.cost_weight === undefined) return null;
  const away = (row) => Math.abs(Math.log((row.cost_weight + 1e-6) / (used.cost_weight + 1e-6)));
  return points.reduce((best, row) => (away(row) < away(best) ? row : best));
}

// From the evaluation; without one, from the policy's own out-of-fold figures, against the best single.
function curve(card) {
  const report = card.report, place = $("curve");
  $("curve-table").replaceChildren();
  place.closest("section").hidden = false;
  if (!report) { outOfFold(card); return; }
  const at = (row) => [row.cost_usd * PER, row.quality];
  const priced = (row) => row && row.cost_usd !== null;
  const points = report.curve.filter(priced);
  if (!points.length) { place.closest("section").hidden = true; return; }
  const alone = (name, row) => (row.plan ? `plan ${name} always` : `${name} alone`);
  const singles = Object.entries(report.experts).filter(([, row]) => priced(row));
  const series = [{ name: "this policy, by cost_weight", points: [...points].sort((a, b) => a.cost_usd - b.cost_usd).map(at), kind: "both", color: 0 },
    ...singles.map(([name, row], i) => ({ name: alone(name, row), points: [at(row)], kind: row.plan ? "squares" : "points", color: 1 + (i % 6) }))];
  if (priced(report.oracle)) series.push({ name: "oracle", points: [at(report.oracle)], kind: "points", color: 7 });
  const used = inUse(card, points);
  const marks = priced(used) ? [[...at(used), `in use: ${preferenceWords(card.preferences)}`]] : [];
  chart(place, series, { title: "Measured quality against US dollars per 1,000 queries; the table below holds the numbers", marks,
    x: { name: "US$ per 1,000 queries", format: (value) => dollars(value) }, y: { name: "quality" } });
  const rows = [...(used ? [["in use", used]] : []), ["the policy's own preference", report.policy], ...points.map((row) => [`cost_weight ${number(row.cost_weight)}`, row]), ...singles.map(([name, row]) => [alone(name, row), row]), ["oracle", report.oracle], ["random", report.random]];
  $("curve-table").replaceChildren(legend(series), h("details", {}, h("summary", {}, "As a table"),
    table(["", "quality", "US$ per 1,000 queries"], rows.map(([name, row]) => [name, number(row.quality, 4), row.cost_usd === null ? "–" : dollars(row.cost_usd * PER)]))));
}

function outOfFold(card) {
  const figures = card.manifest && card.manifest.metrics && card.manifest.metrics.out_of_fold;
  if (!figures) { $("curve").closest("section").hidden = true; return; }
  const rows = Object.entries(figures).filter(([, row]) => Number.isFinite(row.saved) && Number.isFinite(row.gain));
  const series = [{ name: "this policy, out of fold", points: rows.map(([, row]) => [row.saved * 100, row.gain * 100]), kind: "points", color: 0 }, { name: "best single expert", points: [[0, 0]], kind: "points", color: 1 }];
  const used = rows.filter(([, row]) => card.preferences && row.cost_weight === card.preferences.cost_weight);
  chart($("curve"), series, { title: "Out of fold: quality gained against cost saved, both against the best single expert", marks: used.map(([, row]) => [row.saved * 100, row.gain * 100, "in use"]),
    x: { name: "% of its cost saved" }, y: { name: "quality gained, points of 100" } });
  $("curve-table").replaceChildren(legend(series), table(["", "cost_weight", "quality gained", "cost saved"], rows.map(([name, row]) => [name.replaceAll("_", " "), number(row.cost_weight), number(row.gain, 3), percent(row.saved)])));
}

function reliability(report) {
  const place = $("reliability");
  $("reliability-table").replaceChildren();
  place.closest("section").hidden = !report;
  if (!report) return;
  const errors = table(["Expert", "Expected calibration error"], Object.entries(report.calibration || {}).map(([name, error]) => [name, number(error)]));
  if (!report.reliability) { place.replaceChildren(errors); return; }
  const series = Object.entries(report.reliability).map(([name, bins], i) => ({ name, points: bins.map((bin) => [bin.predicted, bin.observed]), kind: "both", color: i % 8 }));
  chart(place, series, { title: "Observed against predicted quality; they are equal on the diagonal", diagonal: true, x: { name: "predicted quality", range: [0, 1] }, y: { name: "observed quality", range: [0, 1] } });
  $("reliability-table").replaceChildren(legend(series), h("details", {}, h("summary", {}, "As a table"), errors));
}

// Queries of the evaluation, the expert that each is sent to, and those that answered it best.
function chosen(card, place) {
  const examples = (card.report && card.report.examples) || [];
  place.closest("section").hidden = !examples.length;
  place.replaceChildren(...(examples.length ? [h("p", { class: "muted" }, `Queries of the evaluation, at ${preferenceWords(card.report.policy.preferences)}.`),
    table(["Query", "task", "sent to", "predicted quality", "answered best by"], examples.map((one) => [one.query, one.task, one.sent, number(one.score), one.best.join(", ")]))] : []));
}

function wins(card) {
  const report = card.report, training = card.manifest && card.manifest.training;
  const parts = [];
  const shares = (row, names) => names.map((name) => (Number.isFinite(row[name]) ? percent(row[name]) : "–"));
  if (report && report.winners) {
    const names = card.experts, all = Object.keys(report.traffic || {}), rows = Object.entries(report.winners);
    if (rows.every(([, row]) => row.sent)) {
      parts.push(h("p", { class: "muted" }, `Share of the evaluation's queries that the policy's own preference (${preferenceWords(report.policy.preferences)}) sends to each candidate, by task.`),
        table(["Task", "queries", ...all], [...rows.map(([task, row]) => [task, row.n, ...shares(row.sent, all)]), ["all", report.n_queries, ...shares(report.traffic || {}, all)]]));
    }
    parts.push(h("p", { class: "muted" }, "Share for which an expert is the best, or equal to the best, by task."),
      table(["Task", "queries", ...names], rows.map(([task, row]) => [task, row.n, ...shares(row.experts, names)])));
  }
  if (training && training.task_means) {
    parts.push(h("p", { class: "muted" }, card.is_prior ? "Expected quality of each expert by task, from priors." : "Mean quality of each expert by task, on the training data."),
      table(["Task", ...card.experts, "best"], Object.entries(training.task_means).map(([task, means]) => [task, ...means.map((mean) => number(mean)), card.experts[means.indexOf(Math.max(...means))]])));
  }
  return parts;
}

function plans(card) {
  const rows = Object.entries(card.plans || {}).map(([name, plan]) => {
    const evaluated = (card.report && card.report.experts && card.report.experts[name]) || {};
    return [name, plan.ask.join(" and "), plan.samples, number(plan.at_least), plan.else, number(evaluated.quality)];
  });
  show("plans", rows.length ? [table(["Plan", "calls", "answers of each", "accepts from a probability of", "else", "quality in evaluation"], rows)] : []);
}

function experts(card) {
  const means = (card.manifest && card.manifest.metrics && card.manifest.metrics.expert_means) || {};
  const windows = Object.fromEntries(((card.manifest && card.manifest.pool) || []).map((one) => [one.name, one.context_window]));
  const rows = (card.experts || []).map((name) => {
    const price = card.prices[name], evaluated = card.report && card.report.experts && card.report.experts[name];
    return [name, ((card.about || {})[name] || {}).description || "–", card.is_prior ? "–" : number(means[name]), evaluated ? number(evaluated.quality) : "–", price ? `$${number(price.input)} / $${number(price.output)}` : "no price", windows[name] || "–"];
  });
  show("experts", rows.length ? [table(["Expert", "good at", "quality in training", "quality in evaluation", "US$ per million tokens in / out", "context window"], rows)] : []);
}

start();
onKey(update);
update();
