"""`to-router chat`: the page's chat in a terminal, with the same explanations."""

import argparse
import json
import os
import sys
from typing import Any

import httpx

from deployments.cli.chat_client import KEY_VARIABLE, Answer, ChatClient, ChatError
from deployments.cli.chat_output import ChatOutput, numbers
from deployments.dashboard.explain import table
from router.cli.inputs import not_negative

TIMEOUT_S = 600.0
HELP = "/new starts over · /all TEXT sends TEXT to every expert · /quit or Ctrl-D leaves"


class Chat:
    """A conversation with one endpoint.

    Args:
        client: the endpoint.
        model: `auto`, a preset or an expert.
        preferences: `cost_weight` or `min_quality` to send; `None` for the policy's own preference.
        output: where answers are printed.
    """

    def __init__(
        self, client: ChatClient, model: str, preferences: dict[str, float] | None, output: ChatOutput
    ) -> None:
        self._client = client
        self._model = model
        self._preferences = preferences
        self._output = output
        self._history: list[dict[str, str]] = []

    def start_over(self) -> None:
        """Forget the conversation."""
        self._history = []

    def send(self, text: str) -> dict[str, Any]:
        """Print the answer as it arrives and then the reasons; returns all of it for a program.

        Raises:
            ChatError: the endpoint returned an error.
        """
        decision = self._client.decide(self._body(text, self._model))
        answer = self._answer(text, self._model)
        if answer.error is None:
            reply = {"role": "assistant", "content": answer.text}
            self._history += [{"role": "user", "content": text}, reply]
        cost_usd = self._client.cost_usd(answer)
        self._output.explain(decision, answer, cost_usd)
        return {
            "expert": answer.expert,
            "reason": answer.reason,
            "attempts": answer.attempts,
            "answer": answer.text,
            "reasoning": answer.reasoning,
            "usage": answer.usage,
            "cost_usd": cost_usd,
            "error": answer.error,
            "decision": decision,
        }

    def send_to_all(self, text: str) -> None:
        """Print the answer of every expert in turn; the conversation does not go on from them.

        Raises:
            ChatError: the endpoint returned an error.
        """
        decision = self._client.decide(self._body(text, self._model))
        for name in decision["experts"]:
            note = " (would be chosen)" if name == decision["expert"] else ""
            self._output.write(f"\n{name}{note}:\n")
            answer = self._answer(text, name)
            self._output.write(numbers(answer, self._client.cost_usd(answer)) + "\n")
        self._output.write("\n" + "\n".join(table(decision, None)) + "\n")

    def _answer(self, text: str, model: str) -> Answer:
        answer = self._client.answer(self._body(text, model), self._output.text, self._output.reasoning)
        self._output.end(answer)
        return answer

    def _body(self, text: str, model: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [*self._history, {"role": "user", "content": text}],
        }
        if self._preferences is not None and model == self._model:
            body["routing"] = self._preferences
        return body


def add_command(commands: Any) -> None:
    """Register `to-router chat`."""
    command = commands.add_parser(
        "chat", help="chat with a running endpoint, and see which expert answers and why"
    )
    command.add_argument("text", nargs="?", help="send this and leave; without it, a conversation")
    command.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the endpoint; default: %(default)s"
    )
    command.add_argument("--model", default="auto", help="auto, a preset or an expert; default: %(default)s")
    preference = command.add_mutually_exclusive_group()
    preference.add_argument("--cost-weight", type=not_negative, help="weight of cost; 0 is best quality")
    preference.add_argument(
        "--min-quality", type=not_negative, help="fraction of the best score that is enough"
    )
    command.add_argument("--all", action="store_true", help="send to every expert, one after the other")
    command.add_argument(
        "--key-env", default=KEY_VARIABLE, help="the variable with the API key; default: %(default)s"
    )
    command.add_argument("--json", action="store_true", help="with TEXT: the answer and the decision as JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.json and (options.text is None or options.all):
        raise ChatError("--json needs one TEXT, and does not go with --all")
    preferences = {
        name: value
        for name, value in (("cost_weight", options.cost_weight), ("min_quality", options.min_quality))
        if value is not None
    }
    key = os.environ.get(options.key_env)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=options.url, headers=headers, timeout=TIMEOUT_S) as http:
            client = ChatClient(http)
            output = ChatOutput(sys.stderr if options.json else sys.stdout)
            chat = Chat(client, options.model, preferences or None, output)
            client.read_prices()
            if options.text is None:
                _converse(chat)
            elif options.all:
                chat.send_to_all(options.text)
            else:
                record = chat.send(options.text)
                if options.json:
                    sys.stdout.write(json.dumps(record, indent=2) + "\n")
                return 0 if record["error"] is None else 1
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ChatError(
            f"no response from {options.url} ({type(error).__name__}): is it served there? see --url"
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
            chat.start_over()
            continue
        try:
            if line.startswith("/all "):
                chat.send_to_all(line.removeprefix("/all ").strip())
            elif line:
                chat.send(line)
        except ChatError as error:
            sys.stdout.write(f"[{error}]\n")
