// A decision in words: the preference, and each expert with the reason that /v1/route returned.
// Nothing of the decision rule is computed here.

import { bar, dollars, h, number, seconds } from "./common.js";

export function preferenceWords(preferences) {
  if (!preferences) return "the policy's own preference";
  if (preferences.min_quality !== null && preferences.min_quality !== undefined) {
    return `the cheapest with at least ${number(preferences.min_quality)} of the best quality`;
  }
  return preferences.cost_weight ? `cost_weight ${number(preferences.cost_weight)}` : "best quality at any cost";
}

// The experts of a decision as list items with bars; `expert` is the one that the answer came from.
export function expertItems(decision, expert = null) {
  const views = decision.experts;
  const ranking = decision.ranking.filter((name) => views[name]);
  const rest = Object.keys(views).filter((name) => !ranking.includes(name));
  const chosen = expert || decision.expert;
  return [...ranking, ...rest].map((name) => {
    const view = views[name];
    const score = view.score === null ? "no prediction" : `quality ${number(view.score)}`;
    const wait = view.ttft_ms === null ? "wait unknown" : `wait ${seconds(view.ttft_ms / 1000)}`;
    return h("li", { class: view.eligible ? "" : "out", "data-expert": name },
      h("span", { class: name === chosen ? "name chosen" : "name" }, h("span", {}, name), h("span", {}, score)),
      bar(view.score, ""),
      h("span", { class: "muted" }, `${dollars(view.cost_usd)} · ${wait}`),
      h("span", {}, view.reason));
  });
}
