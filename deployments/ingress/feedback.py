"""POST /v1/feedback: what a client may say of an answer, and who still knows the request that it speaks of.

A rating joins its decision by the request's id, whichever ingress replica answered. A replica that starts
afresh learns from the decision log what was answered before. Knows no Ray.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from deployments.contracts.errors import BadRequest, ErrorCode, NotFound, Unavailable
from deployments.ingress.accounting import Accounting, key_of
from deployments.ingress.body import read_body
from deployments.ingress.headers import request_id
from deployments.limits.keys import NO_KEY, Caller
from deployments.observability import metrics
from deployments.observability.decision_log import read_records

REMEMBERED = 100_000
"""Answers that a replica still takes a rating for: 1.6 MB."""
MOST_RESTORED_BYTES = 64 * 1024 * 1024
LONGEST_COMMENT = 4000
MOST_BYTES = 64 * 1024
MOST_ASKING = 8
"""Ratings that may be looked for at the other replicas at a time."""
FIELDS = frozenset({"request_id", "quality", "comment"})


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered a request, and whose it was."""

    expert: str
    key: str


@dataclass(frozen=True, slots=True)
class Rating:
    """What a client thinks of an answer."""

    request_id: str
    quality: float
    comment: str | None


KnowsElsewhere = Callable[[str], Awaitable[tuple[Answered | None, bool]]]
"""What other replicas know of a request, and whether all of them could be asked."""


class RecentAnswers:
    """The latest answers of one ingress replica; the oldest is forgotten first.

    A ring of numbers, 16 bytes an answer: as objects they took 20 MB of an ingress. Ids are
    kept as their hashes, 64 bits with this process' own seed: nobody can make two ids meet. Looking one
    up reads the whole ring, which ratings are rare enough for.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._ids = np.zeros(most, dtype=np.int64)
        self._whose = np.zeros(most, dtype=np.int32)
        self._experts = np.zeros(most, dtype=np.int32)
        self._names: dict[str, int] = {}
        """Every key and expert that was seen → its number, in the order of their numbers."""
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, len(self._ids))

    def remember(self, request_id: str, key: str, expert: str) -> None:
        """An expert answered."""
        self._put(hash(request_id), Answered(expert, key))

    def recall(self, request_id: str) -> Answered | None:
        """Who answered it, or answered it last; `None` where it is not known here."""
        found = np.flatnonzero(self._ids[: len(self)] == hash(request_id))
        if not len(found):
            return None
        newest = found[((found - self._written) % len(self._ids)).argmax()]
        return self._at(newest)[1]

    def restore(self, records: Sequence[tuple[str, Answered]]) -> None:
        """Take over what a log tells of earlier answers; what is known here already stays."""
        known = [
            self._at(written % len(self._ids)) for written in range(self._written - len(self), self._written)
        ]
        self._written = 0
        for id_, answered in records:
            self.remember(id_, answered.key, answered.expert)
        for hashed, answered in known:
            self._put(hashed, answered)

    def _put(self, hashed: int, answered: Answered) -> None:
        at = self._written % len(self._ids)
        self._ids[at] = hashed
        self._whose[at] = self._names.setdefault(answered.key, len(self._names))
        self._experts[at] = self._names.setdefault(answered.expert, len(self._names))
        self._written += 1

    def _at(self, place: int) -> tuple[int, Answered]:
        names = list(self._names)
        return int(self._ids[place]), Answered(names[self._experts[place]], names[self._whose[place]])


def answered_before(files: Sequence[Path]) -> list[tuple[str, Answered]]:
    """What the newest of a log's files tell, oldest first, within `MOST_RESTORED_BYTES`.

    Raises:
        OSError: a file cannot be read.
    """
    chosen: list[Path] = []
    size = 0
    for file in reversed(files):
        size += file.stat().st_size
        if size > MOST_RESTORED_BYTES and chosen:
            break
        chosen.insert(0, file)
    return [
        (str(record["request_id"]), Answered(record["expert"], record.get("key") or NO_KEY))
        for file in chosen
        for record in read_records(file)
        if record.get("type") == "decision" and record.get("expert") and record.get("request_id")
    ]


def parse_rating(raw: bytes) -> Rating:
    """Read a rating.

    Raises:
        BadRequest: it is not JSON, a field is missing, unknown or of the wrong type.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", ErrorCode.INVALID_JSON) from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object", ErrorCode.INVALID_JSON)
    if unknown := sorted(body.keys() - FIELDS):
        raise BadRequest(
            f"{unknown[0][:64]} is unknown; a rating takes {', '.join(sorted(FIELDS))}",
            ErrorCode.UNKNOWN_FIELD,
            unknown[0][:64],
        )
    request_id: Any = body.get("request_id")
    if not isinstance(request_id, str) or not request_id:
        raise BadRequest(
            "request_id must be the x-request-id of an answer, a non-empty string",
            ErrorCode.INVALID_TYPE,
            "request_id",
        )
    quality: Any = body.get("quality")
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not math.isfinite(quality):
        raise BadRequest("quality must be a number from 0 to 1", ErrorCode.INVALID_TYPE, "quality")
    if not 0 <= quality <= 1:
        raise BadRequest(
            f"quality must be from 0 to 1, found {quality:g}", ErrorCode.INVALID_VALUE, "quality"
        )
    comment: Any = body.get("comment")
    if comment is not None and (not isinstance(comment, str) or len(comment) > LONGEST_COMMENT):
        raise BadRequest(
            f"comment must be a string of at most {LONGEST_COMMENT} characters",
            ErrorCode.INVALID_TYPE,
            "comment",
        )
    return Rating(request_id, float(quality), comment)


class Feedback:
    """The handler.

    Args:
        caller: whose request it is; raises where a key is needed and missing.
        elsewhere: the way to the other replicas, where there are any.
    """

    def __init__(
        self,
        accounting: Accounting,
        memory: RecentAnswers,
        *,
        caller: Callable[[Request], Caller | None],
        elsewhere: Callable[[], KnowsElsewhere | None],
        upload_timeout_s: float,
    ) -> None:
        self._accounting, self._memory = accounting, memory
        self._caller, self._elsewhere = caller, elsewhere
        self._upload_timeout_s = upload_timeout_s
        self._asking = asyncio.Semaphore(MOST_ASKING)

    async def rate(self, request: Request) -> Response:
        """204; 404 for a request that nobody knows, or that was made with another key."""
        key = key_of(self._caller(request))
        rating = parse_rating(await read_body(request, MOST_BYTES, self._upload_timeout_s))
        answered = self._memory.recall(rating.request_id) or await self._ask_others(rating.request_id)
        if answered is None or answered.key != key:
            raise NotFound(
                f"no answer with the request id {rating.request_id[:128]!r} is known; "
                "it is the x-request-id of an answer, and ratings are taken for the latest ones only",
                ErrorCode.REQUEST_NOT_FOUND,
                "request_id",
            )
        metrics.feedback_quality.labels(answered.expert).observe(rating.quality)
        if self._accounting.log is not None:
            now = datetime.fromtimestamp(self._accounting.now(), UTC)
            self._accounting.log.write(
                {
                    "type": "feedback",
                    "request_id": rating.request_id,
                    "time": now.isoformat(timespec="milliseconds"),
                    "expert": answered.expert,
                    "quality": rating.quality,
                    "comment": rating.comment,
                    "key": None if key == NO_KEY else key,
                }
            )
        return Response(status_code=204, headers={"x-request-id": request_id(request)})

    async def _ask_others(self, id_: str) -> Answered | None:
        ask = self._elsewhere()
        if ask is None:
            return None
        async with self._asking:
            answered, all_spoke = await ask(id_)
        if answered is None and not all_spoke:
            raise Unavailable(
                "not every replica could be asked for this request: try again", ErrorCode.TRY_AGAIN
            )
        return answered
