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

const percent = (share) => `${Math.round(100 * share)} %`;

// What a plan does, with the share of its answers that are probably accepted.
export function steps(plan) {
  const times = plan.samples > 1 ? ` ${plan.samples} times` : "";
  return `calls ${plan.ask.join(" and ")}${times}, accepts ${percent(plan.p_accept)} of such answers, else ${plan.else}`;
}

// What became of a plan: a line for beside its answer.
export function outcome(name, plan, accepted) {
  const members = plan ? plan.ask.join(" and ") : "its members";
  const verdict = accepted ? "accepted" : `not accepted: ${plan ? plan.else : "another expert"} was called`;
  return `Plan ${name}: ${members} answered, ${verdict}.`;
}

// The candidates of a decision as list items with bars; `expert` is the one that the answer came from.
export function expertItems(decision, expert = null) {
  const plans = decision.plans || {};
  const views = { ...decision.experts, ...plans };
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
      h("span", {}, plans[name] ? `${view.reason}; ${steps(view)}` : view.reason));
  });
}
