// Ask: a streaming chat, with the decision beside each answer and a preview of it while the user types.

import { $, call, dollars, h, notice, number, onKey, RequestError, seconds, start } from "./common.js";
import { expertItems, outcome, preferenceWords, steps } from "./explain.js";
import { answerOf } from "./stream.js";

const LIVE_AFTER_MS = 200;
let history = [], facts = { prices: {}, preferences: null }, running = null;
let liveTimer = null, liveCall = null;

// 0 is best quality; the rest spans 0.001 to about 30, where the decision of every pool changes.
const costWeight = () => { const at = Number($("cost").value); return at === 0 ? 0 : Number((10 ** (-3 + at * 0.045)).toPrecision(3)); };
const minQuality = () => Number($("quality").value);

function chosenPreference() {
  if ($("trade-cost").checked) return { cost_weight: costWeight() };
  if ($("trade-quality").checked) return { min_quality: minQuality() };
  return null;
}

// The preference in effect: the slider's, else the policy's own where it is known.
const preference = () => chosenPreference() || facts.preferences;

function request(text, model = "auto") {
  const body = { model, messages: [...history, { role: "user", content: text }] };
  const routing = chosenPreference();
  if (routing && model === "auto") body.routing = routing;
  return body;
}

function showSliders() {
  $("cost-value").textContent = number(costWeight());
  $("cost").setAttribute("aria-valuetext", number(costWeight()));
  $("quality-value").textContent = minQuality().toFixed(2);
}

function previewSoon(delay = LIVE_AFTER_MS) {
  clearTimeout(liveTimer);
  liveTimer = setTimeout(preview, delay);
  showCode();
}

async function preview() {
  if (liveCall) liveCall.abort();
  const text = $("query").value.trim();
  if (!text) {
    $("live").textContent = "Type a message to see the decision.";
    $("live-experts").replaceChildren();
    return;
  }
  const mine = (liveCall = new AbortController());
  try {
    const decision = await (await call("v1/route", { body: request(text), signal: mine.signal })).json();
    await refreshFacts(decision);
    if (mine !== liveCall) return;
    showDecision(decision);
  } catch (error) {
    if (error.name === "AbortError" || mine !== liveCall) return;
    $("live").textContent = words(error);
    $("live-experts").replaceChildren();
  }
}

function showDecision(decision) {
  const how = decision.reason === "routed" ? preferenceWords(preference()) : "no decision by the router: static ranking";
  const first = decision.ranking[0], plan = (decision.plans || {})[first];
  const line = plan ? `Plan ${first} would answer (${how}): ${steps(plan)}.` : `${decision.expert} would answer (${how}).`;
  if ($("live").textContent !== line) $("live").textContent = line;
  $("live").dataset.expert = decision.expert;
  $("live-experts").replaceChildren(...expertItems(decision));
}

const words = (error) => error instanceof RequestError
  ? `${error.message}${error.retryAfter ? ` (try again in ${error.retryAfter} s)` : ""}`
  : `no response from the server: ${error.message}`;

async function ask(text) {
  stop();
  const mine = (running = new AbortController());
  const many = $("all").checked;
  const answers = h("div", { class: many ? "answers many" : "answers" });
  const turn = h("article", { class: "turn" }, h("div", { class: "asked" }, text), answers);
  $("empty").hidden = true;
  $("log").append(turn);
  $("stop").hidden = false;
  const decided = call("v1/route", { body: request(text), signal: mine.signal })
    .then((response) => response.json()).then((decision) => refreshFacts(decision).then(() => decision));
  decided.catch(() => null); // the error is shown where the decision is awaited
  try {
    if (many) {
      const decision = await decided;
      const names = Object.keys(decision.experts);
      await Promise.all(names.map((name) => one(answers, request(text, name), mine.signal, decided, name)));
    } else {
      const reply = await one(answers, request(text), mine.signal, decided, null);
      if (reply) history = [...history, { role: "user", content: text }, { role: "assistant", content: reply }];
    }
  } catch (error) {
    if (error.name !== "AbortError") answers.append(h("p", { class: "error" }, words(error)));
  } finally {
    if (running === mine) { running = null; $("stop").hidden = true; }
  }
}

async function one(answers, body, signal, decided, name) {
  const output = h("div", { class: "said", "aria-busy": "true" });
  const by = h("p", { class: "by" }, name ? `${name} …` : "waiting …");
  const reasoning = h("div", { class: "thought" });
  const details = h("details", { hidden: "" }, h("summary", {}, "Reasoning"), reasoning);
  const facts_ = h("p", { class: "muted" });
  const why = h("div", { class: "why" });
  answers.append(h("section", { class: "answer", "data-expert": name || "" }, h("div", {}, by, details, output, facts_), why));
  const options = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    const answer = await answerOf(options, signal, (text) => output.append(text), (text) => { details.hidden = false; reasoning.append(text); }, (headers) => {
      by.textContent = headers.expert;
      by.closest(".answer").dataset.expert = headers.expert;
    });
    await decided.catch(() => null); // prices may be those of a new policy
    facts_.textContent = numbers(answer);
    if (!answer.error && answer.headers.id) facts_.after(rating(answer.headers.id));
    await beside(why, decided, answer, name);
    if (answer.error) output.append(h("span", { class: "error" }, ` ${answer.error}`));
    return answer.error ? null : answer.text;
  } catch (error) {
    by.textContent = name || "no answer";
    output.append(h("span", { class: "error" }, error.name === "AbortError" ? " stopped" : words(error)));
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

function numbers(answer) {
  const price = facts.prices[answer.headers.expert], usage = answer.usage;
  const parts = [`first byte ${seconds(answer.first)}`, `total ${seconds(answer.total)}`];
  if (usage) {
    parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
    if (price) parts.push(dollars((usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6));
  }
  if (answer.headers.cost !== null) parts.push(`predicted ${dollars(answer.headers.cost)}`);
  return parts.join(" · ");
}

async function beside(why, decided, answer, name) {
  const { attempts, reason, expert, plan, accepted } = answer.headers;
  const lines = [];
  if (reason === "fallback_router") lines.push("The router gave no decision in time: the policy's static ranking was used.");
  let decision = null;
  try { decision = await decided; } catch { lines.push("The decision cannot be shown."); }
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
    why.append(h("ol", { class: "experts" }, ...expertItems(decision, expert)));
    return;
  }
  const view = decision.experts[name];
  const score = view && view.score !== null ? `predicted quality ${number(view.score)}` : "no prediction";
  why.append(h("p", { class: "muted" }, name === decision.expert ? `${score} – would have been chosen` : score));
}

function stop() {
  if (running) running.abort();
}

function showCode() {
  const body = request($("query").value.trim() || "What is 12 + 30?");
  const url = new URL("v1", location.href).href;
  const json = JSON.stringify(body, null, 2);
  $("code-curl").textContent = `curl ${url}/chat/completions \\\n  -H 'content-type: application/json' \\\n  -H "authorization: Bearer $TO_ROUTER_KEY" \\\n  -d '${json.replaceAll("'", "'\\''")}'`;
  const extra = body.routing ? `,\n    extra_body=${python({ routing: body.routing })}` : "";
  $("code-python").textContent = `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(url)}, api_key=os.environ.get("TO_ROUTER_KEY", "none"))\nanswer = client.chat.completions.create(\n    model=${JSON.stringify(body.model)},\n    messages=${python(body.messages)}${extra},\n)\nprint(answer.choices[0].message.content)`;
}

// JSON strings, numbers, lists and objects are Python too.
const python = (value) => JSON.stringify(value);

async function copy(what) {
  const text = $(`code-${what}`).textContent;
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = "copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents($(`code-${what}`));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    $("copied").textContent = "selected: copy it with your keyboard";
  }
}

// Prices and the default preference belong to one policy: they are stale after another took effect.
async function refreshFacts(decision) {
  if (decision.policy && decision.policy !== facts.policy_id) await readFacts();
}

async function readFacts() {
  try {
    facts = await (await call("page/data/ask")).json();
    notice("");
  } catch (error) {
    if (error.status !== 401) notice(words(error));
    return false;
  }
  $("default-label").textContent = facts.preferences ? `the policy's own: ${preferenceWords(facts.preferences)}` : "the policy's own";
  return true;
}

async function loadFacts() {
  if (await readFacts()) previewSoon(0);
}

start();
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("query").value.trim();
  if (!text) { $("query").focus(); return; }
  $("query").value = "";
  ask(text);
});
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("form").requestSubmit(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("key-dialog").open) stop(); });
$("query").addEventListener("input", () => previewSoon());
$("stop").addEventListener("click", stop);
$("fresh").addEventListener("click", () => {
  stop();
  history = [];
  for (const turn of $("log").querySelectorAll(".turn")) turn.remove();
  $("empty").hidden = false;
  previewSoon(0);
  $("query").focus();
});
for (const [slider, radio] of [["cost", "trade-cost"], ["quality", "trade-quality"]]) {
  $(slider).addEventListener("input", () => { $(radio).checked = true; showSliders(); previewSoon(60); });
}
for (const radio of document.getElementsByName("trade")) radio.addEventListener("change", () => previewSoon(0));
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
onKey(loadFacts);
showSliders();
showCode();
loadFacts();
