"""`POST /v1/feedback`: ratings of responses.

A rating joins its decision by the request's id, whichever ingress replica responded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from deployments.canary.arm_reports import ArmSink, NoArms
from deployments.contracts.errors import ErrorCode, NotFound, Unavailable
from deployments.contracts.validation import bad_request, json_object
from deployments.ingress.accounting import Account
from deployments.ingress.limited import LimitedEndpoints
from deployments.limits.keys import NO_KEY, key_id
from deployments.observability import metrics
from deployments.observability.recent_answers import AnswerOrigin, RecentAnswers
from deployments.observability.record_sink import RecordSink
from deployments.settings import Settings
from router.learning.record import FeedbackRecord

LONGEST_COMMENT = 4000
MOST_BYTES = 64 * 1024
MOST_RATINGS = 5000
"""Ratings that a replica remembers, so that a repetition is noticed: 20 MB at the longest comments."""
MOST_LOOKUPS = 8
"""Requests that are looked up at other replicas at the same time."""

AskOthers = Callable[[str], Awaitable[tuple[AnswerOrigin | None, bool]]]
"""Request id → its origin as other replicas know it, and whether all of them responded."""


class Rating(Settings):
    """A client's rating of a response."""

    model_config = ConfigDict(strict=True)

    request_id: Annotated[str, Field(min_length=1)]
    """The `x-request-id` of the response."""
    quality: Annotated[float, Field(ge=0, le=1)]
    """From 0 to 1."""
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] | None = None
    """Free text, kept where `log.queries` is true."""


def parse_rating(raw: bytes) -> Rating:
    """Read a rating.

    Raises:
        BadRequest: it is not JSON, or a field is missing, unknown or invalid.
    """
    try:
        return Rating.model_validate(json_object(raw))
    except ValidationError as error:
        raise bad_request(error, "", list(Rating.model_fields)) from error


class Feedback:
    """Handler of ratings.

    Args:
        limited: serves requests within the limits of their keys.
        records: gets each rating.
        recent: this replica's responses.
        ask_others: finds responses of other replicas; `None` where there are none.
        arms: gets ratings while a canary runs.
        now: seconds since 1970.
    """

    def __init__(
        self,
        limited: LimitedEndpoints,
        records: RecordSink,
        recent: RecentAnswers,
        ask_others: AskOthers | None,
        *,
        arms: ArmSink | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._limited, self._records, self._recent = limited, records, recent
        self._ask_others = ask_others
        self._arms = NoArms() if arms is None else arms
        self._now = now
        self._ratings: dict[tuple[str, str], Rating] = {}
        """The last ratings, by request and key: one counts for each response."""
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)

    async def rate(self, request: Request) -> Response:
        """204; 404 for a request that is unknown, or came with another key."""
        return await self._limited.serve(request, "feedback", MOST_BYTES, self._rate)

    async def _rate(self, raw: bytes, account: Account) -> Response:
        key = key_id(account.caller)
        rating = parse_rating(raw)
        origin = self._recent.recall(rating.request_id) or await self._find(rating.request_id)
        if origin is None or origin.key != key:
            raise NotFound(
                f"no response with the request id {rating.request_id[:128]!r} is known; "
                "it is the x-request-id of a response, and ratings are accepted for the latest ones only",
                ErrorCode.REQUEST_NOT_FOUND,
                "request_id",
            )
        rated = (rating.request_id, key)
        if self._ratings.get(rated) == rating:
            return Response(status_code=204)  # a repetition adds nothing
        if rated not in self._ratings:
            metrics.feedback_quality.labels(origin.expert).observe(rating.quality)
            if origin.score is not None:
                metrics.routed_quality.labels(origin.expert).observe(rating.quality)
                metrics.routed_quality_predicted.labels(origin.expert).inc(origin.score)
            if origin.arm is not None:
                metrics.arm_quality.labels(origin.arm.name).observe(rating.quality)
                self._arms.measured(origin.arm, "quality", rating.quality)
            if origin.plan is not None and origin.p_right is not None:
                metrics.plan_quality.labels(origin.plan).observe(rating.quality)
                metrics.plan_quality_predicted.labels(origin.plan).inc(origin.p_right)
        self._remember(rated, rating)
        self._records.write(
            FeedbackRecord(
                request_id=rating.request_id,
                time=datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds"),
                expert=origin.expert,
                quality=rating.quality,
                comment=rating.comment,
                key=None if key == NO_KEY else key,
            )
        )
        return Response(status_code=204)

    def _remember(self, rated: tuple[str, str], rating: Rating) -> None:
        self._ratings.pop(rated, None)
        self._ratings[rated] = rating
        if len(self._ratings) > MOST_RATINGS:
            del self._ratings[next(iter(self._ratings))]

    async def _find(self, id_: str) -> AnswerOrigin | None:
        if self._ask_others is None:
            return None
        async with self._lookups:
            origin, complete = await self._ask_others(id_)
        if origin is None and not complete:
            text = "not every replica responded to the search for this request: try again"
            raise Unavailable(text, ErrorCode.TRY_AGAIN)
        return origin
