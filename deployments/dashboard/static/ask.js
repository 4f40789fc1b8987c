// Ask: a streaming chat, with the decision beside each answer and a preview of it while the user types.

import { $, call, h, notice, number, onKey, start } from "./common.js";
import { copy, showCode } from "./copy.js";
import { expertItems, line, preferenceWords, steps } from "./explain.js";
import { one, words } from "./turn.js";

const LIVE_AFTER_MS = 200;
// Where the configuration has no example of its own.
const EXAMPLES = ["What is 12 + 30?", "Write a Python function that reverses a list.", "Translate 'good morning' into French.", "Why is the sky blue?"];
let history = [], facts = { prices: {}, preferences: null, about: {} }, running = null;
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

const showRequest = () => showCode(request($("query").value.trim() || EXAMPLES[0]));

function showSliders() {
  $("cost-value").textContent = number(costWeight());
  $("cost").setAttribute("aria-valuetext", number(costWeight()));
  $("quality-value").textContent = minQuality().toFixed(2);
}

function previewSoon(delay = LIVE_AFTER_MS) {
  clearTimeout(liveTimer);
  liveTimer = setTimeout(preview, delay);
  showRequest();
}

function clearPreview(text) {
  $("live").textContent = text;
  $("live-experts").replaceChildren();
  $("live-line").textContent = "";
}

async function preview() {
  if (liveCall) liveCall.abort();
  const text = $("query").value.trim();
  if (!text) { clearPreview("Type a message to see the decision."); return; }
  const mine = (liveCall = new AbortController());
  try {
    const decision = await (await call("v1/route", { body: request(text), signal: mine.signal })).json();
    await refreshFacts(decision);
    if (mine !== liveCall) return;
    showDecision(decision);
  } catch (error) {
    if (error.name === "AbortError" || mine !== liveCall) return;
    clearPreview(words(error));
  }
}

function showDecision(decision) {
  const how = decision.reason === "routed" ? preferenceWords(preference()) : "no decision by the router: static ranking";
  const first = decision.ranking[0], plan = (decision.plans || {})[first];
  const sentence = plan ? `Plan ${first} would answer (${how}): ${steps(plan)}.` : `${decision.expert} would answer (${how}).`;
  if ($("live").textContent !== sentence) $("live").textContent = sentence;
  $("live").dataset.expert = decision.expert;
  $("live-experts").replaceChildren(...expertItems(decision, { about: facts.about }));
  $("live-line").textContent = line(decision).words;
}

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
  const options = { signal: mine.signal, decided, facts: () => facts };
  try {
    if (many) {
      const names = Object.keys((await decided).experts);
      await Promise.all(names.map((name) => one(answers, request(text, name), { ...options, name })));
    } else {
      const reply = await one(answers, request(text), { ...options, name: null });
      if (reply) history = [...history, { role: "user", content: text }, { role: "assistant", content: reply }];
    }
  } catch (error) {
    if (error.name !== "AbortError") answers.append(h("p", { class: "error" }, words(error)));
  } finally {
    if (running === mine) { running = null; $("stop").hidden = true; }
  }
}

function stop() {
  if (running) running.abort();
}

function send(text) {
  $("query").value = "";
  ask(text);
  previewSoon(0);
}

// One example of each expert that has one in the configuration, else some of the page.
function showExamples() {
  const own = Object.entries(facts.about).filter(([, expert]) => expert.example);
  const items = own.length ? own.map(([name, expert]) => [expert.example, expert.description || name]) : EXAMPLES.map((example) => [example, ""]);
  $("examples").replaceChildren(...items.map(([example, about]) => h("li", {},
    h("button", { type: "button", class: "example", onclick: () => { send(example); $("query").focus(); } },
      h("span", {}, example), about ? h("small", { class: "muted" }, about) : null))));
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
  showExamples();
  return true;
}

async function loadFacts() {
  if (await readFacts()) previewSoon(0);
}

start();
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("query").value.trim();
  if (text) send(text); else $("query").focus();
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
showRequest();
loadFacts();
