"""Judgements for a log: a uniform random sample of its requests, each checked or graded.

The log holds no responses, so the expert that responded gets each sampled query once more. What it writes is
compared with the query's reference where one is known, and graded by a judge elsewhere. Resumable: answers
and grades are appended to files as they come.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from router.collection.collect import collect
from router.data.outcomes import Row, read_rows
from router.errors import InputError, OutcomesError
from router.experts import Price
from router.files import write_atomically
from router.labels.judge import Judge
from router.learning.exploration import uniform
from router.learning.log import JUDGEMENTS, SUFFIX, WORK, files_of
from router.learning.record import DecisionRecord, JudgementRecord, to_json
from router.learning.references import NO_REFERENCES, References

TEMPLATE_TOKENS = 200
"""Tokens of the judge's prompt beside the query and the answer."""
GRADE_TOKENS = 512
"""The most tokens of a grade."""
ANSWERED = "200"
SAMPLE = f"{JUDGEMENTS}sample{SUFFIX}"
"""The file of a log's judgements. They are of one sample: two of different rates could not be weighed."""


@dataclass(frozen=True)
class Sample:
    """The requests to judge."""

    requests: tuple[DecisionRecord, ...]
    rate: float
    """Probability with which any request that can be judged was drawn."""
    at_most_usd: float | None
    """Cost of all of it, at most; `None` where a price is unknown."""


@dataclass(frozen=True)
class Judged:
    """How judging ended."""

    judgements: tuple[JudgementRecord, ...]
    failed: tuple[str, ...]
    """`request: reason` for each that has no grade."""


def can_be_judged(record: DecisionRecord) -> bool:
    """Whether a request has all that judging needs: a text, and one expert's response that could be drawn."""
    return (
        record.query is not None
        and record.expert is not None
        and record.plan is None
        and record.propensities is not None
        and record.outcome == ANSWERED
    )


def sample(
    decisions: Sequence[DecisionRecord],
    *,
    rate: float,
    budget_usd: float | None,
    prices: Mapping[str, Price],
    judge: str | None,
    max_tokens: int,
    references: References = NO_REFERENCES,
    seed: int = 0,
) -> Sample:
    """Draw requests uniformly at random, in an order that a larger rate or budget only extends.

    Args:
        decisions: of the log.
        rate: share of the requests that can be judged.
        budget_usd: fewer are drawn where they could cost more; `None` for no bound.
        prices: expert → price, the judge's among them.
        judge: the expert that judges; without one only requests with a reference are drawn.
        max_tokens: of an answer.
        references: of the queries that have one.
        seed: of the order.

    Raises:
        InputError: none can be judged, a budget needs a price that is unknown, or allows none.
    """
    usable = [one for one in decisions if can_be_judged(one)]
    if not usable:
        raise InputError(
            "no request of the log can be judged: judging needs the texts of queries "
            "(`log.queries: true` in user_config of Ingress) and exploration"
        )
    if judge is None:
        usable = [one for one in usable if one.query in references]
        if not usable:
            raise InputError("no request of the log has a query with a reference: name a judge with --judge")
    ordered = sorted(usable, key=lambda one: (uniform(seed, one.request_id, "judge"), one.request_id))
    wanted = ordered[: max(1, round(rate * len(ordered)))]
    judges = [None if one.query in references else judge for one in wanted]
    costs = [_at_most_usd(*pair, prices, max_tokens) for pair in zip(wanted, judges, strict=True)]
    if budget_usd is not None:
        if None in costs:
            called = {str(one.expert) for one in wanted} | {one for one in judges if one is not None}
            names = ", ".join(sorted(name for name in called if name not in prices))
            raise InputError(f"a budget needs the prices of {names}: set them in the policy, or leave it out")
        wanted = wanted[: _within(budget_usd, [cost or 0.0 for cost in costs])]
        if not wanted:
            raise InputError(f"no judgement fits into {budget_usd} US$: raise --budget-usd")
    priced = [cost for cost in costs[: len(wanted)] if cost is not None]
    total = sum(priced) if len(priced) == len(wanted) else None
    return Sample(tuple(wanted), len(wanted) / len(ordered), total)


def judge_log(
    drawn: Sample,
    folder: Path,
    *,
    endpoint: str,
    judge: str | None,
    max_tokens: int,
    references: References = NO_REFERENCES,
    api_key: str | None = None,
    key_env: str = "TO_ROUTER_JUDGE_KEY",
    notify: Callable[[str], None] = lambda line: None,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Judged:
    """Judge a sample and write its judgements beside the log, in place of those of an earlier sample.

    Args:
        drawn: the sample.
        folder: of the log; a folder in it keeps answers and grades until the log is judged.
        endpoint: where experts and judge run.
        judge: the expert that judges; `None` where the whole sample has references.
        max_tokens: of an answer.
        references: as the sample was drawn with.
        api_key: of the endpoint; `None` for none.
        key_env: environment variable with the key for the judge.
        notify: called with a line for each step.
        transport: for tests.
        sleep: for tests.

    Raises:
        InputError: the endpoint does not respond, lacks an expert, or returns no usable grade at all.
        OSError: the folder cannot be written.
    """
    work = folder / WORK
    work.mkdir(mode=0o700, exist_ok=True)
    answers = work / "answers.jsonl"
    failed: list[str] = []
    for expert in sorted({str(one.expert) for one in drawn.requests}):
        queries = [_query(one) for one in drawn.requests if one.expert == expert]
        notify(f"{expert}: {len(queries)} queries once more")
        how: dict[str, Any] = {"api_key": api_key, "max_tokens": max_tokens}
        found = asyncio.run(
            collect(endpoint, queries, [expert], answers, transport=transport, sleep=sleep, **how)
        )
        failed += found.failed
    wanted = {(one.request_id, str(one.expert)) for one in drawn.requests}
    rows = [row for row in read_rows(answers) if (row["query_id"], row["expert"]) in wanted]
    compared = [
        _judgement(row, references.quality(row), references.check(row["query"]), drawn.rate)
        for row in rows
        if row["query"] in references
    ]
    rest = [row for row in rows if row["query"] not in references]
    if references:
        notify(f"{len(compared)} answers compared with their references")
    graded = []
    if judge is not None:
        notify(f"{judge} grades {len(rest)} answers")
        grader = Judge(
            endpoint=endpoint,
            model=judge,
            cache=str(work / f"grades-{uniform(0, judge, 'file'):.12f}.jsonl"),
            key_env=key_env,
            max_tokens=GRADE_TOKENS,
            transport=transport,
            sleep=sleep,
        )
        for row, grade in zip(rest, grader.label_rows(rest) if rest else [], strict=True):
            if isinstance(grade, OutcomesError):
                failed.append(f"{row['query_id']}: {grade}")
            else:
                graded.append(_judgement(row, grade["quality"], judge, drawn.rate))
    judgements = (*compared, *graded)
    _write(folder, judgements)
    return Judged(judgements, tuple(failed))


def _write(folder: Path, judgements: Sequence[JudgementRecord]) -> None:
    """Write the sample, then remove those that it replaces: of a request in both, the later one counts."""
    lines = [json.dumps(to_json(one, with_texts=False)) + "\n" for one in judgements]
    write_atomically(folder / SAMPLE, "".join(lines), mode=0o600, durable=True)
    for file in files_of(folder, JUDGEMENTS):
        if file.name != SAMPLE:
            file.unlink(missing_ok=True)


def _judgement(row: Row, quality: float, judge: str, rate: float) -> JudgementRecord:
    return JudgementRecord(
        request_id=row["query_id"],
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        expert=row["expert"],
        quality=quality,
        judge=judge,
        sampling_rate=rate,
    )


def _query(one: DecisionRecord) -> Row:
    return {"query_id": one.request_id, "query": one.query}


def _at_most_usd(
    one: DecisionRecord, judge: str | None, prices: Mapping[str, Price], max_tokens: int
) -> float | None:
    """Cost of another answer of the expert, and of its grade where a judge gives it, at most."""
    expert, judging = prices.get(str(one.expert)), prices.get(judge or "")
    if expert is None or (judge is not None and judging is None):
        return None
    prompt = one.prompt_tokens or len(one.query or "")
    cost = expert.cost_usd(prompt, max_tokens)
    if judging is None:
        return cost
    return cost + judging.cost_usd(prompt + max_tokens + TEMPLATE_TOKENS, GRADE_TOKENS)


def _within(budget_usd: float, costs: Sequence[float]) -> int:
    """How many of them, from the first on, a budget allows for."""
    left, number = budget_usd, 0
    for cost in costs:
        left -= cost
        if left < 0:
            break
        number += 1
    return number
