"""The reference's mean negative log-likelihood under each expert, in nats per token.

Needs an engine that scores a prompt's own tokens (`prompt_logprobs`, as vLLM has it, through
/completions). One of the TO-Router paper's four figures (arXiv 2408.12320).
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from router.data.outcomes import Row
from router.errors import OutcomesError
from router.labels.answer_cache import AnswerCache, Body, fetch_all
from router.validation import Count, Seconds


class Nll:
    """`nll` of the reference after the query, and as `quality` exp(−nll), the mean chance of a token.

    Args:
        endpoint: such as http://127.0.0.1:8000/v1; it serves every expert under its name.
        template: how query and reference are joined; holds `{query}`, and the reference follows it.
        cache: JSONL in which answers are kept; an interrupted run goes on from it.
        key_env: environment variable with the endpoint's key.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        template: str = "{query}\n",
        cache: str | None = None,
        key_env: str = "TO_ROUTER_API_KEY",
        concurrency: Count = 8,
        timeout_s: Seconds = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.endpoint, self.template, self.key_env = endpoint, template, key_env
        self.cache = None if cache is None else Path(cache)
        self._how = {
            "concurrency": concurrency,
            "timeout_s": timeout_s,
            "transport": transport,
            "sleep": sleep,
        }

    def label_rows(self, rows: Sequence[Row]) -> list[dict[str, float] | OutcomesError]:
        """`nll` and `quality` of each row; an error where the engine did not score its prompts.

        The reference's tokens are those beyond the query's own, so each query is scored with and without.

        Raises:
            InputError: the endpoint does not respond, or returns no `prompt_logprobs`.
            OutcomesError: a reference adds no token to its query.
        """
        alone = [self._body(row["expert"], self._prompt(row)) for row in rows]
        whole = [self._body(row["expert"], self._prompt(row) + row["reference"]) for row in rows]
        cache, key = AnswerCache(self.cache), os.environ.get(self.key_env)
        how: dict[str, Any] = self._how
        found = asyncio.run(
            fetch_all(self.endpoint, "/completions", [*alone, *whole], _logprobs, cache, api_key=key, **how)
        )
        labels: list[dict[str, float] | OutcomesError] = []
        for number, (before, after) in enumerate(
            zip(found[: len(rows)], found[len(rows) :], strict=True), start=1
        ):
            if unread := [one for one in (before, after) if isinstance(one, OutcomesError)]:
                labels.append(unread[0])
                continue
            added = after[len(before) :]
            if not added:
                raise OutcomesError(f"row {number}: the reference adds no token to its query")
            nll = -sum(added) / len(added)
            labels.append({"nll": nll, "quality": min(1.0, math.exp(-nll))})
        return labels

    def _prompt(self, row: Row) -> str:
        return self.template.replace("{query}", row["query"])

    @staticmethod
    def _body(expert: str, prompt: str) -> Body:
        return {
            "model": expert,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }


def _logprobs(body: Body) -> list[float]:
    """Log-probability of each prompt token except the first, which has no context."""
    found = body["choices"][0].get("prompt_logprobs")
    if not isinstance(found, list):
        raise ValueError("no prompt_logprobs: the engine does not score prompts")
    values = []
    for entry in found[1:]:
        (token,) = list(entry.values())[:1]  # the prompt's own token comes first
        values.append(max(float(token["logprob"]), -1e4))
    return values
