"""`to-router chat`: the page's chat for those who live in the terminal, with the same explanation.

Speaks the public HTTP API and nothing else; imports no Ray. What a model says is printed without
the control characters by which it could steer a terminal.
"""

import argparse
import json
import os
import sys
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import httpx

from deployments.dashboard.explain import dollars, table
from router.errors import InputError

KEY_VARIABLE = "TO_ROUTER_KEY"
TIMEOUT_S = 600.0
HELP = "/new begins anew · /all TEXT asks every expert · /quit or Ctrl-D leaves"


class ChatError(InputError):
    """The endpoint refused or could not be reached; the message says why."""


@dataclass
class Answer:
    """One answer as it came."""

    expert: str
    attempts: int
    reason: str
    text: str = ""
    reasoning: str = ""
    """What it thought before; no part of the conversation."""
    usage: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    first_s: float = 0.0
    whole_s: float = 0.0


class Chat:
    """A conversation with one endpoint.

    Args:
        http: a client whose base is the endpoint.
        model: `auto`, a preset or an expert.
        trade: `cost_weight` or `min_quality` to send; `None` for the policy's own preference.
        out: where answers go as they come.
    """

    def __init__(self, http: httpx.Client, model: str, trade: dict[str, float] | None, out: TextIO) -> None:
        self._http = http
        self._model = model
        self._trade = trade
        self._out = out
        self._history: list[dict[str, str]] = []
        self._prices: dict[str, dict[str, float]] = {}
        self._has_page = False
        self._policy: str | None = None

    def learn(self) -> None:
        """Prices and the default preference, where the endpoint's page tells them."""
        answer = self._http.get("/page/data/ask")
        if answer.status_code == httpx.codes.OK:
            told = answer.json()
            self._prices, self._policy = told["prices"], told["policy_id"]
            self._has_page = True
        elif answer.status_code != httpx.codes.NOT_FOUND:  # there may be no page: dollars are left out
            raise ChatError(_refusal(answer))

    def forget(self) -> None:
        """Begin a new conversation."""
        self._history = []

    def ask(self, text: str) -> dict[str, Any]:
        """Ask, print the answer as it comes and then why; what a program would read of it."""
        decision = self._decide(text)
        answer = self._stream(self._body(text, self._model))
        if answer.error is None:
            said = {"role": "assistant", "content": answer.text}
            self._history += [{"role": "user", "content": text}, said]
        self._explain(decision, answer)
        return self._record(decision, answer)

    def ask_all(self, text: str) -> None:
        """Every expert in turn; the conversation does not go on from it."""
        decision = self._decide(text)
        for name in decision["experts"]:
            self._say(f"\n{name}{' (would be chosen)' if name == decision['expert'] else ''}:\n")
            answer = self._stream(self._body(text, name))
            self._say(self._numbers(answer) + "\n")
        self._say("\n" + "\n".join(table(decision, None)) + "\n")

    def _body(self, text: str, model: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [*self._history, {"role": "user", "content": text}],
        }
        if self._trade is not None and model == self._model:
            body["routing"] = self._trade
        return body

    def _decide(self, text: str) -> dict[str, Any]:
        answer = self._http.post("/v1/route", json=self._body(text, self._model))
        if answer.status_code != httpx.codes.OK:
            raise ChatError(_refusal(answer))
        told: dict[str, Any] = answer.json()
        if self._has_page and told.get("policy") not in {None, self._policy}:
            self.learn()  # the policy was swapped
        return told

    def _stream(self, body: dict[str, Any]) -> Answer:
        began = time.monotonic()
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise ChatError(_refusal(response))
            headers = response.headers
            answer = Answer(
                headers.get("x-router-expert", body["model"]),
                int(headers.get("x-router-attempts", "1")),
                headers.get("x-router-reason", "named"),
            )
            for event in _events(response):
                answer.first_s = answer.first_s or time.monotonic() - began
                self._take(event, answer)
        answer.whole_s = time.monotonic() - began
        self._say("\n")
        if answer.error is not None:
            self._say(f"[{answer.error}]\n")
        return answer

    def _take(self, event: dict[str, Any], answer: Answer) -> None:
        if "error" in event:
            answer.error = str(event["error"].get("message"))
        answer.usage = event.get("usage") or answer.usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            # vLLM says `reasoning`, older versions and others `reasoning_content`.
            thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
            piece = delta.get("content") or ""
            if thought and not answer.reasoning:
                self._say("[reasoning]\n")
            answer.reasoning += thought
            self._say(printable(thought))
            if piece and answer.reasoning and not answer.text:
                self._say("\n[answer]\n")
            answer.text += piece
            self._say(printable(piece))

    def _explain(self, decision: dict[str, Any], answer: Answer) -> None:
        lines = [f"— {answer.expert} · {self._numbers(answer)}"]
        if answer.reason == "fallback_router":
            lines.append("  the router gave no decision in time: the policy's static ranking was used")
        if answer.attempts > 1:
            silent = [name for name in decision["ranking"] if name != answer.expert][: answer.attempts - 1]
            lines.append(f"  {answer.attempts} experts were asked: {', '.join(silent)} gave no answer")
        lines += table(decision, answer.expert)
        self._say("\n".join(lines) + "\n")

    def _numbers(self, answer: Answer) -> str:
        parts = [f"first byte {answer.first_s * 1000:.0f} ms, whole {answer.whole_s * 1000:.0f} ms"]
        if answer.usage:
            parts.append(
                f"{answer.usage.get('prompt_tokens')} + {answer.usage.get('completion_tokens')} tokens"
            )
        cost = self._cost_usd(answer)
        if cost is not None:
            parts.append(dollars(cost))
        return " · ".join(parts)

    def _cost_usd(self, answer: Answer) -> float | None:
        price = self._prices.get(answer.expert)
        if price is None or not answer.usage:
            return None
        prompt, completion = answer.usage["prompt_tokens"], answer.usage["completion_tokens"]
        return float(prompt * price["input"] + completion * price["output"]) / 1e6

    def _record(self, decision: dict[str, Any], answer: Answer) -> dict[str, Any]:
        return {
            "expert": answer.expert,
            "reason": answer.reason,
            "attempts": answer.attempts,
            "answer": answer.text,
            "reasoning": answer.reasoning,
            "usage": answer.usage,
            "cost_usd": self._cost_usd(answer),
            "error": answer.error,
            "decision": decision,
        }

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def printable(text: str) -> str:
    """Text without control and direction characters: no answer may steer the terminal it is shown in."""
    return "".join(
        letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in _STEER
    )


_STEER = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def add_command(commands: Any) -> None:
    """Register `to-router chat`."""
    command = commands.add_parser("chat", help="chat with a running endpoint, and see who answers and why")
    command.add_argument("text", nargs="?", help="ask this and leave; left out, a conversation")
    command.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    command.add_argument("--model", default="auto", help="auto, a preset or an expert; default: %(default)s")
    trade = command.add_mutually_exclusive_group()
    trade.add_argument("--cost-weight", type=float)
    trade.add_argument("--min-quality", type=float)
    command.add_argument("--all", action="store_true", help="ask every expert, one after the other")
    command.add_argument(
        "--key-env", default=KEY_VARIABLE, help="the variable with the API key; default: %(default)s"
    )
    command.add_argument("--json", action="store_true", help="with TEXT: the answer and the decision as JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.json and (options.text is None or options.all):
        raise ChatError("--json needs one TEXT to ask, and goes without --all")
    trade = {
        name: value
        for name, value in (("cost_weight", options.cost_weight), ("min_quality", options.min_quality))
        if value is not None
    }
    key = os.environ.get(options.key_env)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=options.url, headers=headers, timeout=TIMEOUT_S) as http:
            out = sys.stderr if options.json else sys.stdout
            chat = Chat(http, options.model, trade or None, out)
            chat.learn()
            if options.text is None:
                _converse(chat)
            elif options.all:
                chat.ask_all(options.text)
            else:
                told = chat.ask(options.text)
                if options.json:
                    sys.stdout.write(json.dumps(told, indent=2) + "\n")
                return 0 if told["error"] is None else 1
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ChatError(
            f"no answer from {options.url} ({type(error).__name__}): is it served there? see --url"
        ) from error
    return 0


def _converse(chat: Chat) -> None:
    sys.stdout.write(HELP + "\n")
    while True:
        try:
            line = input("› ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return
        if line in {"/quit", "/exit"}:
            return
        if line == "/new":
            chat.forget()
            continue
        try:
            if line.startswith("/all "):
                chat.ask_all(line.removeprefix("/all ").strip())
            elif line:
                chat.ask(line)
        except ChatError as error:
            sys.stdout.write(f"[{error}]\n")


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            try:
                event = json.loads(data)
            except json.JSONDecodeError as error:
                raise ChatError(f"the answer held an event that is no JSON: {error}") from None
            if isinstance(event, dict):
                yield event


def _refusal(response: httpx.Response) -> str:
    try:
        told = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        told = "an answer that is not of this API"
    wait = response.headers.get("retry-after")
    hint = f"; put a key into {KEY_VARIABLE}" if response.status_code == httpx.codes.UNAUTHORIZED else ""
    return f"{response.status_code}: {told}{hint}{f'; again in {wait} s' if wait else ''}"
