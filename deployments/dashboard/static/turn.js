// One answer in the conversation: its text as it arrives, the decision beside it, its figures and its rating.

import { call, dollars, h, number, RequestError, seconds } from "./common.js";
import { drawn, outcome } from "./explain.js";
import { growing } from "./markdown.js";
import { answerOf } from "./stream.js";

export const words = (error) => error instanceof RequestError
  ? `${error.message}${error.retryAfter ? ` (try again in ${error.retryAfter} s)` : ""}`
  : `no response from the server: ${error.message}`;

// Draws into `answers`; returns the text of the answer, or null. `facts` returns prices and experts, `name` is
// the expert that was named, or null.
export async function one(answers, body, { signal, decided, name, facts }) {
  const output = h("div", { class: "said", "aria-busy": "true" });
  const by = h("p", { class: "by" }, name ? `${name} …` : "waiting …");
  const reasoning = h("div", { class: "thought" });
  const details = h("details", { hidden: "" }, h("summary", {}, "Reasoning"), reasoning);
  const figures = h("p", { class: "muted" });
  const why = h("div", { class: "why", "aria-live": "off" }); // drawn twice; the conversation around it is announced
  const fault = (text) => output.append(h("p", { class: "error" }, text));
  const text = growing(output);
  answers.append(h("section", { class: "answer", "data-expert": name || "" }, h("div", {}, by, details, output, figures), why));
  if (!name) decided.then((decision) => { if (!why.childElementCount) why.append(...drawn(decision, { about: facts().about })); }, () => null);
  try {
    const options = { ...body, stream: true, stream_options: { include_usage: true } };
    const answer = await answerOf(options, signal, text.add, (thought) => { details.hidden = false; reasoning.append(thought); }, (headers) => {
      by.textContent = headers.expert;
      by.closest(".answer").dataset.expert = headers.expert;
    });
    text.end();
    await decided.catch(() => null); // prices may be those of a new policy
    figures.textContent = numbers(answer, facts().prices);
    if (!answer.error && answer.headers.id) figures.after(rating(answer.headers.id));
    await beside(why, decided, answer, name, facts().about);
    if (answer.error) fault(answer.error);
    return answer.error ? null : answer.text;
  } catch (error) {
    text.end();
    by.textContent = name || "no answer";
    fault(error.name === "AbortError" ? "stopped" : words(error));
    return null;
  } finally {
    output.setAttribute("aria-busy", "false");
  }
}

// A rating for POST /v1/feedback, from which the next policy can learn.
function rating(id) {
  const status = h("span", { role: "status" });
  const rate = async (quality, event) => {
    try {
      await call("v1/feedback", { body: { request_id: id, quality } });
      for (const button of event.target.parentElement.querySelectorAll("button")) button.disabled = true;
      status.textContent = "thank you";
    } catch (error) {
      status.textContent = words(error);
    }
  };
  return h("p", { class: "row rate" },
    h("button", { type: "button", class: "quiet", onclick: (event) => rate(1, event) }, "Good answer"),
    h("button", { type: "button", class: "quiet", onclick: (event) => rate(0, event) }, "Bad answer"), status);
}

function numbers(answer, prices) {
  const price = prices[answer.headers.expert], usage = answer.usage;
  const parts = [`first byte ${seconds(answer.first)}`, `total ${seconds(answer.total)}`];
  if (usage) {
    parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
    if (price) parts.push(dollars((usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6));
  }
  if (answer.headers.cost !== null) parts.push(`predicted ${dollars(answer.headers.cost)}`);
  return parts.join(" · ");
}

async function beside(why, decided, answer, name, about) {
  const { attempts, reason, expert, plan, accepted } = answer.headers;
  const lines = [];
  if (reason === "fallback_router") lines.push("The router gave no decision in time: the policy's static ranking was used.");
  let decision = null;
  try { decision = await decided; } catch { lines.push("The decision cannot be shown."); }
  why.replaceChildren();
  if (plan) {
    why.dataset.plan = plan;
    why.append(h("p", {}, outcome(plan, decision && decision.plans && decision.plans[plan], accepted)));
  } else if (attempts > 1 || reason === "fallback_expert") {
    const before = decision ? decision.ranking.filter((other) => other !== expert).slice(0, attempts - 1) : [];
    lines.push(`${attempts} experts were tried${before.length ? `: ${before.join(", ")} gave no answer` : ""}; ${expert} answered.`);
  }
  why.dataset.attempts = attempts;
  why.dataset.reason = reason;
  why.append(...lines.map((line) => h("p", { class: "error" }, line)));
  if (!decision) return;
  if (!name) {
    why.append(...drawn(decision, { expert, accepted: plan ? accepted : null, about }));
    return;
  }
  const view = decision.experts[name];
  const score = view && view.score !== null ? `predicted quality ${number(view.score)}` : "no prediction";
  why.append(h("p", { class: "muted" }, name === decision.expert ? `${score} – would have been chosen` : score));
}
