"""The part of `to-router learn` that grades a random sample of the log, by references and by a judge."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli.inputs import count, not_negative, share, show_step
from router.errors import InputError
from router.learning.record import DecisionRecord, JudgementRecord, Record
from router.policy import Policy

if TYPE_CHECKING:
    from router.learning.judging import Sample
    from router.learning.references import References


def add_judging(command: argparse.ArgumentParser) -> None:
    """The arguments that `judged` reads."""
    command.add_argument("--judge", help="the expert that grades a random sample; default: none is graded")
    command.add_argument(
        "--references",
        type=Path,
        help="queries as for `collect`, with `reference`: what is sampled of these is checked, not judged",
    )
    command.add_argument(
        "--sample", type=share, default=0.1, help="share of the log's requests to grade; default: %(default)s"
    )
    command.add_argument(
        "--budget-usd", type=not_negative, help="fewer are graded where they could cost more"
    )
    command.add_argument(
        "--max-tokens", type=count, default=512, help="of an answer to grade; default: %(default)s"
    )
    command.add_argument(
        "--endpoint",
        default="http://127.0.0.1:8000/v1",
        help="where experts and judge run; default: %(default)s",
    )
    command.add_argument(
        "--key-env",
        default="TO_ROUTER_API_KEY",
        help="environment variable with the endpoint's key; default: %(default)s",
    )


def planned(options: argparse.Namespace, policy: Policy, records: Sequence[Record]) -> dict[str, Any]:
    """What judging would do, for `--dry-run`."""
    references = _references(options)
    drawn = _sample(options, policy, records, references)
    return {
        "judge": options.judge,
        "requests": len(drawn.requests),
        "with_reference": sum(one.query in references for one in drawn.requests),
        "rate": drawn.rate,
        "at_most_usd": drawn.at_most_usd,
    }


def wanted(options: argparse.Namespace) -> bool:
    """Whether anything is to be graded."""
    return options.judge is not None or options.references is not None


def graders(records: Sequence[Record]) -> dict[str, int]:
    """Judge or check → the responses that it graded, in the order of names; the last grade of each counts."""
    grades = sorted((one for one in records if isinstance(one, JudgementRecord)), key=lambda one: one.time)
    last = {one.request_id: one.judge for one in grades}
    return dict(sorted(Counter(last.values()).items()))


def judged(options: argparse.Namespace, policy: Policy, records: Sequence[Record]) -> None:
    """Grade a sample; the judgements are in the log afterwards.

    Raises:
        InputError: some requests have no grade: run again, what is done stays.
    """
    from router.learning.judging import judge_log

    references = _references(options)
    drawn = _sample(options, policy, records, references)
    cost = "unknown" if drawn.at_most_usd is None else f"at most {drawn.at_most_usd:.4g} US$"
    show_step(f"grading {len(drawn.requests)} requests, {drawn.rate:.1%} of those that can be; cost {cost}")
    found = judge_log(
        drawn,
        options.log,
        endpoint=options.endpoint,
        judge=options.judge,
        max_tokens=options.max_tokens,
        references=references,
        api_key=os.environ.get(options.key_env),
        key_env=options.key_env,
        notify=show_step,
    )
    print(f"{len(found.judgements)} judgements", file=sys.stderr)
    if found.failed:
        raise InputError(
            f"{len(found.failed)} requests have no grade; run again to retry them. First: {found.failed[0]}"
        )


def _references(options: argparse.Namespace) -> "References":
    from router.collection.collect import read_queries
    from router.learning.references import NO_REFERENCES, References

    if options.references is None:
        return NO_REFERENCES
    return References.of(read_queries(options.references, repeated=True), str(options.references))


def _sample(
    options: argparse.Namespace, policy: Policy, records: Sequence[Record], references: "References"
) -> "Sample":
    from router.learning.judging import sample

    return sample(
        [one for one in records if isinstance(one, DecisionRecord)],
        rate=options.sample,
        budget_usd=options.budget_usd,
        prices={expert.name: expert.price for expert in policy.pool if expert.price is not None},
        judge=options.judge,
        max_tokens=options.max_tokens,
        references=references,
    )
