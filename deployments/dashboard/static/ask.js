// Ask: a chat that streams, the decision beside each answer and, while one types, ahead of it.

import { $, call, dollars, h, notice, number, onKey, Refused, seconds, start } from "./common.js";
import { expertItems, preferenceWords } from "./explain.js";
import { answerOf } from "./stream.js";

const LIVE_AFTER_MS = 200;
let history = [], facts = { prices: {}, preferences: null }, running = null;
let liveTimer = null, liveCall = null;

// 0 is best quality; the rest spans 0.001 to about 30, where every pool changes its mind.
const costWeight = () => { const at = Number($("cost").value); return at === 0 ? 0 : Number((10 ** (-3 + at * 0.045)).toPrecision(3)); };
const minQuality = () => Number($("quality").value);

function chosenTrade() {
  if ($("trade-cost").checked) return { cost_weight: costWeight() };
  if ($("trade-quality").checked) return { min_quality: minQuality() };
  return null;
}

// What is in force: the slider's, else the policy's own where it is known.
const trade = () => chosenTrade() || facts.preferences;

function request(text, model = "auto") {
  const body = { model, messages: [...history, { role: "user", content: text }] };
  const routing = chosenTrade();
  if (routing && model === "auto") body.routing = routing;
  return body;
}

function showSliders() {
  $("cost-value").textContent = number(costWeight());
  $("cost").setAttribute("aria-valuetext", number(costWeight()));
  $("quality-value").textContent = minQuality().toFixed(2);
}

function soon(delay = LIVE_AFTER_MS) {
  clearTimeout(liveTimer);
  liveTimer = setTimeout(live, delay);
  showCode();
}

async function live() {
  if (liveCall) liveCall.abort();
  const text = $("query").value.trim();
  if (!text) {
    $("live").textContent = "Type a question to see the decision.";
    $("live-experts").replaceChildren();
    return;
  }
  const mine = (liveCall = new AbortController());
  try {
    const decision = await (await call("v1/route", { body: request(text), signal: mine.signal })).json();
    await factsOf(decision);
    if (mine !== liveCall) return;
    showDecision(decision);
  } catch (error) {
    if (error.name === "AbortError" || mine !== liveCall) return;
    $("live").textContent = told(error);
    $("live-experts").replaceChildren();
  }
}

function showDecision(decision) {
  const how = decision.reason === "routed" ? preferenceWords(trade()) : "the router gave no decision: static ranking";
  const line = `${decision.expert} would answer (${how}).`;
  if ($("live").textContent !== line) $("live").textContent = line;
  $("live").dataset.expert = decision.expert;
  $("live-experts").replaceChildren(...expertItems(decision));
}

const told = (error) => error instanceof Refused
  ? `${error.message}${error.retryAfter ? ` (again in ${error.retryAfter} s)` : ""}`
  : `no answer from the server: ${error.message}`;

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
    .then((answer) => answer.json()).then((decision) => factsOf(decision).then(() => decision));
  decided.catch(() => null); // it is shown where it is awaited
  try {
    if (many) {
      const decision = await decided;
      const names = Object.keys(decision.experts);
      await Promise.all(names.map((name) => one(answers, request(text, name), mine.signal, decided, name)));
    } else {
      const said = await one(answers, request(text), mine.signal, decided, null);
      if (said) history = [...history, { role: "user", content: text }, { role: "assistant", content: said }];
    }
  } catch (error) {
    if (error.name !== "AbortError") answers.append(h("p", { class: "error" }, told(error)));
  } finally {
    if (running === mine) { running = null; $("stop").hidden = true; }
  }
}

async function one(place, body, signal, decided, name) {
  const said = h("div", { class: "said", "aria-busy": "true" });
  const by = h("p", { class: "by" }, name ? `${name} …` : "asking …");
  const thought = h("div", { class: "thought" });
  const thinking = h("details", { hidden: "" }, h("summary", {}, "Reasoning"), thought);
  const facts_ = h("p", { class: "muted" });
  const why = h("div", { class: "why" });
  place.append(h("section", { class: "answer", "data-expert": name || "" }, h("div", {}, by, thinking, said, facts_), why));
  const options = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    const answer = await answerOf(options, signal, (text) => said.append(text), (text) => { thinking.hidden = false; thought.append(text); }, (headers) => {
      by.textContent = headers.expert;
      by.closest(".answer").dataset.expert = headers.expert;
    });
    await decided.catch(() => null); // prices may be those of a new policy
    facts_.textContent = numbers(answer);
    if (!answer.error && answer.headers.id) facts_.after(rating(answer.headers.id));
    await beside(why, decided, answer, name);
    if (answer.error) said.append(h("span", { class: "error" }, ` ${answer.error}`));
    return answer.error ? null : answer.text;
  } catch (error) {
    by.textContent = name || "no answer";
    said.append(h("span", { class: "error" }, error.name === "AbortError" ? " stopped" : told(error)));
    return null;
  } finally {
    said.setAttribute("aria-busy", "false");
  }
}

// Was it right? Goes to POST /v1/feedback, from which the next policy can learn.
function rating(id) {
  const said = h("span", { role: "status" });
  const rate = async (quality, event) => {
    try {
      await call("v1/feedback", { body: { request_id: id, quality } });
      for (const button of event.target.parentElement.querySelectorAll("button")) button.disabled = true;
      said.textContent = "thank you";
    } catch (error) {
      said.textContent = told(error);
    }
  };
  return h("p", { class: "row rate" },
    h("button", { type: "button", class: "quiet", onclick: (event) => rate(1, event) }, "Good answer"),
    h("button", { type: "button", class: "quiet", onclick: (event) => rate(0, event) }, "Bad answer"), said);
}

function numbers(answer) {
  const price = facts.prices[answer.headers.expert], used = answer.usage;
  const parts = [`first byte ${seconds(answer.first)}`, `whole ${seconds(answer.whole)}`];
  if (used) {
    parts.push(`${used.prompt_tokens} + ${used.completion_tokens} tokens`);
    if (price) parts.push(dollars((used.prompt_tokens * price.input + used.completion_tokens * price.output) / 1e6));
  }
  if (answer.headers.cost !== null) parts.push(`predicted ${dollars(answer.headers.cost)}`);
  return parts.join(" · ");
}

async function beside(why, decided, answer, name) {
  const { attempts, reason, expert } = answer.headers;
  const lines = [];
  if (reason === "fallback_router") lines.push("The router gave no decision in time: the policy's static ranking was used.");
  let decision = null;
  try { decision = await decided; } catch { lines.push("The decision could not be shown."); }
  if (attempts > 1 || reason === "fallback_expert") {
    const before = decision ? decision.ranking.filter((other) => other !== expert).slice(0, attempts - 1) : [];
    lines.push(`${attempts} experts were asked${before.length ? `: ${before.join(", ")} gave no answer` : ""}; ${expert} answered.`);
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

// Prices and the policy's own preference are those of one policy: a swap makes them stale.
async function factsOf(decision) {
  if (decision.policy && decision.policy !== facts.policy_id) await readFacts();
}

async function readFacts() {
  try {
    facts = await (await call("page/data/ask")).json();
    notice("");
  } catch (error) {
    if (error.status !== 401) notice(told(error));
    return false;
  }
  $("default-label").textContent = facts.preferences ? `the policy's own: ${preferenceWords(facts.preferences)}` : "the policy's own";
  return true;
}

async function loadFacts() {
  if (await readFacts()) soon(0);
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
$("query").addEventListener("input", () => soon());
$("stop").addEventListener("click", stop);
$("fresh").addEventListener("click", () => {
  stop();
  history = [];
  for (const turn of $("log").querySelectorAll(".turn")) turn.remove();
  $("empty").hidden = false;
  soon(0);
  $("query").focus();
});
for (const [slider, radio] of [["cost", "trade-cost"], ["quality", "trade-quality"]]) {
  $(slider).addEventListener("input", () => { $(radio).checked = true; showSliders(); soon(60); });
}
for (const radio of document.getElementsByName("trade")) radio.addEventListener("change", () => soon(0));
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
onKey(loadFacts);
showSliders();
showCode();
loadFacts();
