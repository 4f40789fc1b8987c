// One streamed chat completion: its text and its reasoning as they come, its headers, its usage, its times.

import { call } from "./common.js";

export async function answerOf(body, signal, onText, onReasoning, onHeaders) {
  const began = performance.now();
  const answer = await call("v1/chat/completions", { body, signal });
  const told = {
    expert: answer.headers.get("x-router-expert"),
    id: answer.headers.get("x-request-id"),
    reason: answer.headers.get("x-router-reason"),
    attempts: Number(answer.headers.get("x-router-attempts") || 1),
    cost: answer.headers.has("x-router-cost-usd") ? Number(answer.headers.get("x-router-cost-usd")) : null,
  };
  onHeaders(told);
  const found = { headers: told, text: "", usage: null, error: null, first: null, whole: null };
  const take = (event) => {
    if (event.error) found.error = event.error.message;
    if (event.usage) found.usage = event.usage;
    const choice = event.choices && event.choices[0];
    const delta = (choice && choice.delta) || {};
    // vLLM says `reasoning`, older versions and others `reasoning_content`; it is no part of the answer.
    const thought = delta.reasoning || delta.reasoning_content;
    if (typeof thought === "string" && thought) onReasoning(thought);
    if (typeof delta.content === "string" && delta.content) { found.text += delta.content; onText(delta.content); }
  };
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", done = false;
  for (;;) {
    const part = await reader.read();
    if (part.done) break;
    if (found.first === null) found.first = (performance.now() - began) / 1000;
    const lines = (rest + part.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") { done = true; continue; }
      let event = null;
      try { event = JSON.parse(data); } catch { found.error = "the answer held an event that is no JSON"; continue; }
      take(event);
    }
  }
  if (!done && !found.error) found.error = "the answer broke off before its end";
  found.whole = (performance.now() - began) / 1000;
  return found;
}
