"""`to-router outcomes`: ratings in the decision log become outcomes that a policy can be trained on."""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from router.data.outcomes import write_rows
from router.errors import OutcomesError
from router.learning.log import log_files, read_records
from router.learning.record import DecisionRecord, FeedbackRecord, NewerRecordError, Record

MEASURED = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "ttft_s")
INTEGERS = frozenset({"prompt_tokens", "completion_tokens"})


def add_command(commands: Any) -> None:
    """Register `to-router outcomes`."""
    command = commands.add_parser("outcomes", help="turn ratings in the decision log into outcomes")
    command.add_argument(
        "--log",
        type=Path,
        default=Path("var/decisions"),
        help="folder of the decision log; default: %(default)s",
    )
    command.add_argument("--out", type=Path, required=True, help="a Parquet or JSONL file, by its suffix")
    command.set_defaults(run=_run)


def outcomes(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One row per rated pair of query and expert, with the mean of its ratings.

    The last rating of a response counts, by its time. It joins the response by the request's id, the key
    and the expert: ids of old logs were the clients' own. A request that failed or was cancelled is no
    outcome.

    Raises:
        OutcomesError: there is no rating, or the log kept no queries.
    """
    answered: dict[tuple[str, str | None], list[DecisionRecord]] = {}
    rated: dict[tuple[str, str | None, str | None], FeedbackRecord] = {}
    for record in sorted(records, key=lambda record: record.time):
        if isinstance(record, FeedbackRecord):
            rated[record.request_id, record.key, record.expert] = record
        elif isinstance(record, DecisionRecord) and record.outcome == "200" and record.expert is not None:
            answered.setdefault((record.request_id, record.key), []).append(record)
    known = [
        (response, rating.quality)
        for rating in rated.values()
        if (response := _rated_by(rating, answered)) is not None
    ]
    if not known:
        count = sum(map(len, answered.values()))
        raise OutcomesError(
            f"the log has {count} answers and {len(rated)} ratings but no rating of these answers: "
            "clients rate answers with POST /v1/feedback"
        )
    with_text = [(record, quality) for record, quality in known if record.query]
    if not with_text:
        raise OutcomesError(
            f"the log has {len(known)} rated answers without their queries: set `log.queries: true` in "
            "user_config of Ingress, so that the log keeps them"
        )
    groups: dict[tuple[str, str], list[tuple[DecisionRecord, float]]] = {}
    for record, quality in with_text:
        groups.setdefault((record.query or "", record.expert or ""), []).append((record, quality))
    return [_row(query, expert, group) for (query, expert), group in groups.items()]


def _rated_by(
    rating: FeedbackRecord, answered: Mapping[tuple[str, str | None], list[DecisionRecord]]
) -> DecisionRecord | None:
    """The response that a rating is of; `None` where it is not known for certain."""
    responses = [
        response
        for response in answered.get((rating.request_id, rating.key), ())
        if rating.expert in {None, response.expert}
    ]
    return responses[0] if len(responses) == 1 else None


def _row(query: str, expert: str, group: list[tuple[DecisionRecord, float]]) -> dict[str, Any]:
    digest = hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()[:16]
    row: dict[str, Any] = {"query_id": digest, "query": query, "expert": expert}
    row["quality"] = fmean(quality for _, quality in group)
    for name in MEASURED:
        values = [value for record, _ in group if (value := getattr(record, name)) is not None]
        mean = fmean(values) if values else None
        row[name] = round(mean) if mean is not None and name in INTEGERS else mean
    return row


def _run(options: argparse.Namespace) -> int:
    files = log_files(options.log)
    if not files:
        raise OutcomesError(f"{options.log} has no decision log: name the folder of `log.folder`")
    invalid = 0

    def count_invalid() -> None:
        nonlocal invalid
        invalid += 1

    try:
        rows = outcomes(record for file in files for record in read_records(file, count_invalid))
    except NewerRecordError as error:
        raise OutcomesError(str(error)) from error
    write_rows(options.out, rows)
    if invalid:
        sys.stderr.write(f"{invalid} lines of the log are no valid records and were skipped\n")
    experts = len({row["expert"] for row in rows})
    sys.stdout.write(f"{options.out}: {len(rows)} outcomes of {experts} experts\n")
    return 0
