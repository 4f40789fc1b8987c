// Why an expert was chosen and the others were not, in words; the sums are those of the contract:
// utility = score - cost_weight * cost / (dearest eligible cost of this query).

import { bar, dollars, h, number, seconds } from "./common.js";

export function preferenceWords(trade) {
  if (!trade) return "the policy's own preference";
  if (trade.min_quality !== null && trade.min_quality !== undefined) {
    return `the cheapest with at least ${number(trade.min_quality)} of the best quality`;
  }
  return trade.cost_weight ? `cost_weight ${number(trade.cost_weight)}` : "best quality, whatever it costs";
}

// name -> one sentence for every expert of a decision
export function reasons(decision, trade) {
  const told = {}, experts = decision.experts, first = decision.expert;
  const open = Object.entries(experts).filter(([, view]) => view.eligible);
  const scores = open.map(([, view]) => view.score).filter((score) => score !== null);
  const best = Math.max(...scores);
  const dearest = Math.max(...open.map(([, view]) => view.cost_usd || 0));
  const weight = trade && trade.cost_weight ? trade.cost_weight : 0;
  const worth = (view) => view.score - (dearest ? (weight * (view.cost_usd || 0)) / dearest : 0);
  const floor = trade && Number.isFinite(trade.min_quality) ? trade.min_quality * best : null;
  for (const [name, view] of Object.entries(experts)) {
    if (!view.eligible) told[name] = `excluded: ${view.excluded_because || "not eligible"}`;
    else if (decision.reason === "named") told[name] = name === first ? "named by the request" : "not asked for";
    else if (view.score === null) told[name] = name === first ? "first of the policy's static ranking" : "later in the static ranking";
    else if (floor !== null && view.score < floor) told[name] = `not good enough: ${number(view.score)}, needed ${number(floor)}`;
    else if (floor !== null) told[name] = name === first ? "cheapest that is good enough" : "good enough, but dearer or later";
    else if (name === first) told[name] = weight ? `best worth: ${sum(view, worth(view), weight, dearest)}` : "best predicted quality";
    else if (trade) told[name] = weight ? `worth less: ${sum(view, worth(view), weight, dearest)}` : "lower predicted quality";
    else told[name] = "ranked lower";
  }
  return told;
}

function sum(view, worth, weight, dearest) {
  const cost = dearest ? (weight * (view.cost_usd || 0)) / dearest : 0;
  return `${number(view.score)} − ${number(cost)} for cost = ${number(worth)}`;
}

// The experts of a decision as list items with bars; `answered` marks who answered in the end.
export function expertItems(decision, trade, answered = null) {
  const told = reasons(decision, trade);
  const order = [...decision.ranking, ...Object.keys(decision.experts).filter((name) => !decision.ranking.includes(name))];
  const chosen = answered || decision.expert;
  return order.filter((name) => decision.experts[name]).map((name) => {
    const view = decision.experts[name];
    const score = view.score === null ? "no prediction" : `quality ${number(view.score)}`;
    const wait = view.ttft_ms === null ? "wait unknown" : `wait ${seconds(view.ttft_ms / 1000)}`;
    return h("li", { class: view.eligible ? "" : "out", "data-expert": name },
      h("span", { class: name === chosen ? "name chosen" : "name" }, h("span", {}, name), h("span", {}, score)),
      bar(view.score, ""),
      h("span", { class: "muted" }, `${dollars(view.cost_usd)} · ${wait}`),
      h("span", {}, told[name]));
  });
}
