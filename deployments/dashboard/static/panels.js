// Panels of Board about what not every graph has: plans, expected times, reasons of choices, unfamiliar queries.
// Each hides itself where there is nothing to show.

import { $, h, number, percent, table } from "./common.js";
import { by, mean, quantile, sum } from "./metrics.js";

const show = (id, content) => { $(id).hidden = !content; if (content) $(`${id}-body`).replaceChildren(...content); };

// Plans of the policy, and those that were carried out: accepted against predicted.
export function plans(names, grown) {
  const seenNames = [...by(grown, "to_router_plans_total", "plan")].filter(([, count]) => count).map(([name]) => name);
  const rows = [...new Set([...names, ...seenNames])].map((plan) => {
    const results = by(grown, "to_router_plans_total", "result", { plan });
    const carried = [...results].filter(([result]) => result !== "full").reduce((all, [, count]) => all + count, 0);
    const rest = ["overrun", "else_failed", "full"].filter((result) => results.get(result)).map((result) => `${result.replaceAll("_", " ")} ${results.get(result)}`);
    const share = (count) => (carried ? percent(count / carried) : "–");
    return [plan, number(carried, 6), share(results.get("accepted") || 0), share(sum(grown, "to_router_plans_predicted_accepted_total", { plan })), rest.join(", ") || "none"];
  });
  show("plans", rows.length ? [table(["Plan", "Carried out", "Accepted", "Predicted to be accepted", "Otherwise"], rows)] : null);
}

// Observed by expected time; 1 is exact. Only where time has a price.
export function times(experts, grown) {
  const name = "to_router_expected_time_ratio";
  const count = (expert) => sum(grown, `${name}_count`, { expert, part: "first_byte" });
  const cell = (expert, part) => {
    const at = quantile(grown, name, { expert, part }, 0.5);
    if (!at) return "–";
    return `${number(at.value, 2)} (${at.high === Infinity ? `above ${number(at.low)}` : `${number(at.low)} to ${number(at.high)}`})`;
  };
  const rows = experts.filter(count).map((expert) => [expert, number(count(expert), 6), cell(expert, "first_byte"), cell(expert, "end")]);
  show("times", rows.length ? [table(["Expert", "Responses", "To the first byte, p50", "To the end, p50"], rows)] : null);
}

const REASONS = {
  routed: "chosen by the policy", named: "named by the request", explored: "drawn to explore",
  fallback_router: "static ranking: no decision in time", fallback_expert: "another expert failed before",
};

// Why an expert responded, and how much of the traffic is unlike the training data.
export function choices(grown) {
  const reasons = [...by(grown, "to_router_decisions_total", "reason")].filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
  const all = reasons.reduce((total, [, count]) => total + count, 0);
  const rows = reasons.map(([reason, count]) => [REASONS[reason] || reason, number(count, 6), percent(count / all)]);
  const scored = sum(grown, "to_router_router_batch_size_sum"), unfamiliar = sum(grown, "to_router_router_unfamiliar_total");
  if (scored && rows.length) rows.push(["far from all training data, of those scored", number(unfamiliar, 6), percent(unfamiliar / scored)]);
  show("choices", rows.length ? [table(["Reason", "Responses", "Share"], rows)] : null);
}

// A canary policy beside the one in effect: its state, and what each arm's requests and ratings were.
export function canary(levels, grown) {
  const state = [...by(levels, "to_router_canary", "state")].find(([, replicas]) => replicas);
  const rows = ["canary", "control"].map((arm) => {
    const results = by(grown, "to_router_arm_requests_total", "result", { arm });
    const all = [...results.values()].reduce((total, count) => total + count, 0);
    return [arm, number(all, 6), all ? percent((results.get("success") || 0) / all) : "–", number(mean(grown, "to_router_arm_quality", { arm }))];
  });
  show("canary", state ? [h("p", {}, `The canary is ${state[0].replaceAll("_", " ")}.`), table(["Arm", "Requests", "Succeeded", "Mean rating"], rows)] : null);
}

// Without any request there is nothing to draw: a sentence and a link instead of empty panels.
export function onlyWith(requests) {
  for (const element of document.querySelectorAll("[data-needs=requests]")) element.hidden = !requests;
  $("none").hidden = Boolean(requests);
}
