// One streaming chat completion: text and reasoning as they arrive, headers, usage, times.

import { call } from "./common.js";

export async function answerOf(body, signal, onText, onReasoning, onHeaders) {
  const began = performance.now();
  const response = await call("v1/chat/completions", { body, signal });
  const headers = {
    expert: response.headers.get("x-router-expert"),
    id: response.headers.get("x-request-id"),
    reason: response.headers.get("x-router-reason"),
    plan: response.headers.get("x-router-plan"),
    accepted: response.headers.get("x-router-accepted") === "true",
    attempts: Number(response.headers.get("x-router-attempts") || 1),
    cost: response.headers.has("x-router-cost-usd") ? Number(response.headers.get("x-router-cost-usd")) : null,
  };
  onHeaders(headers);
  const answer = { headers, text: "", usage: null, error: null, first: null, total: null };
  const take = (event) => {
    if (event.error) answer.error = event.error.message;
    if (event.usage) answer.usage = event.usage;
    const choice = event.choices && event.choices[0];
    const delta = (choice && choice.delta) || {};
    // `reasoning` in vLLM, `reasoning_content` in its older versions and elsewhere; it is no part of the answer.
    const reasoning = delta.reasoning || delta.reasoning_content;
    if (typeof reasoning === "string" && reasoning) onReasoning(reasoning);
    if (typeof delta.content === "string" && delta.content) { answer.text += delta.content; onText(delta.content); }
  };
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", done = false;
  for (;;) {
    const part = await reader.read();
    if (part.done) break;
    if (answer.first === null) answer.first = (performance.now() - began) / 1000;
    const lines = (rest + part.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") { done = true; continue; }
      let event = null;
      try { event = JSON.parse(data); } catch { answer.error = "the stream contained an event that is not JSON"; continue; }
      take(event);
    }
  }
  if (!done && !answer.error) answer.error = "the stream ended early";
  answer.total = (performance.now() - began) / 1000;
  return answer;
}
