// A decision drawn and in words: each candidate with its predicted quality, cost and time, the line that the
// preference draws, and the reason that /v1/route returned. Nothing of the decision rule is computed here.

import { dollars, h, number, seconds, track } from "./common.js";

export function preferenceWords(preferences) {
  if (!preferences) return "the policy's own preference";
  if (preferences.min_quality !== null && preferences.min_quality !== undefined) {
    return `the cheapest with at least ${number(preferences.min_quality)} of the best quality`;
  }
  return preferences.cost_weight ? `cost_weight ${number(preferences.cost_weight)}` : "best quality at any cost";
}

const percent = (share) => `${Math.round(100 * share)} %`;
const call = (plan) => `calls ${plan.ask.join(" and ")}${plan.samples > 1 ? ` ${plan.samples} times` : ""}`;

// What a plan does, with the share of its answers that are probably accepted.
export const steps = (plan) => `${call(plan)}, accepts ${percent(plan.p_accept)} of such answers, else ${plan.else}`;

// What became of a plan: a line for beside its answer.
export function outcome(name, plan, accepted) {
  const members = plan ? plan.ask.join(" and ") : "its members";
  const verdict = accepted ? "accepted" : `not accepted: ${plan ? plan.else : "another expert"} was called`;
  return `Plan ${name}: ${members} answered, ${verdict}.`;
}

// The steps of a plan, one below the other; `accepted` is known once it was carried out.
function stepItems(plan, accepted) {
  const mark = (taken) => (accepted === null ? "" : taken ? "taken" : "untaken");
  return h("ol", { class: "steps" },
    h("li", { class: mark(true) }, call(plan)),
    h("li", { class: mark(accepted) }, `accepts ${percent(plan.p_accept)} of such answers`, track({ solid: plan.p_accept }), accepted ? " accepted" : null),
    h("li", { class: mark(!accepted) }, `else ${plan.else}`, accepted === false ? ": its answer is this one" : null));
}

// Where the preference draws its line over predicted quality: at the required score, else at the best utility.
export function line(decision) {
  if (decision.required_score !== null && decision.required_score !== undefined) {
    return { at: decision.required_score, words: "Line: the quality that the preference requires; the cheapest candidate that reaches it is first." };
  }
  const first = (decision.plans || {})[decision.ranking[0]] || decision.experts[decision.ranking[0]];
  if (!first || first.utility === null || first.utility === undefined) return { at: null, words: "" };
  return { at: first.utility, words: "Solid: what is left of the predicted quality after cost and time; hatched: what the preference takes off. Line: the highest that is left, which is first." };
}

const measure = (name, value, bar) => [h("dt", {}, name), h("dd", {}, bar, h("span", {}, value))];

// The candidates of a decision as list items with bars; `expert` is the one that the answer came from.
export function expertItems(decision, { expert = null, accepted = null, about = {} } = {}) {
  const plans = decision.plans || {};
  const views = { ...decision.experts, ...plans };
  const ranking = decision.ranking.filter((name) => views[name]);
  const rest = Object.keys(views).filter((name) => !ranking.includes(name));
  const chosen = expert || decision.ranking[0], { at } = line(decision);
  const time = (view) => view.latency_ms ?? view.ttft_ms;
  const most = (read) => Math.max(...Object.values(views).map((view) => read(view) || 0)) || 1;
  const cost = most((view) => view.cost_usd), longest = most(time);
  return [...ranking, ...rest].map((name) => {
    const view = views[name], own = name === chosen;
    const left = view.utility === null || decision.required_score != null ? view.score : Math.min(view.score, view.utility);
    const note = (about[name] || {}).description;
    return h("li", { class: `${view.eligible ? "" : "out"} ${own ? "chosen" : ""}`, "data-expert": name },
      h("p", { class: "name" }, h("span", {}, name), own ? h("span", { class: "badge" }, expert ? "answered" : "chosen") : null),
      note ? h("p", { class: "muted" }, note) : null,
      h("dl", { class: "measures" },
        ...measure("quality", view.score === null ? "no prediction" : number(view.score), track({ solid: left, whole: view.score, at: view.eligible ? at : null })),
        ...measure("cost", dollars(view.cost_usd), track({ solid: (view.cost_usd || 0) / cost })),
        ...measure("time", time(view) === null ? "unknown" : seconds(time(view) / 1000), track({ solid: (time(view) || 0) / longest }))),
      h("p", { class: "reason" }, view.reason),
      plans[name] ? stepItems(view, accepted) : null);
  });
}

// The drawing as a whole: the list, and what its line means.
export function drawn(decision, options) {
  const { words } = line(decision);
  return [h("ol", { class: "experts" }, ...expertItems(decision, options)), words ? h("p", { class: "muted" }, words) : null].filter(Boolean);
}
