"""The members of one plan: their calls, what was read of their answers, and the verdict on them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from deployments.contracts.answers import (
    Answer,
    Answers,
    StreamedAnswers,
    answers_of,
    events_without_logprobs,
    logprobs_field,
    only_choice,
    only_choice_events,
    without_logprobs,
)
from deployments.contracts.call_order import CallOrder, PlanToCarryOut
from deployments.contracts.errors import ApiError, ExpertError
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.requests import InferenceRequest
from deployments.contracts.required_form import caller_check, required_form
from deployments.contracts.sse import StreamObserver, end_of_events
from deployments.upstream.attempts import Attempt, OpenedResponse, PlanResult
from deployments.upstream.expert import Expert
from router.plans.signals import Reading, at_hand, read, read_beginning, signals_of

logger = logging.getLogger("ray.serve")

MAX_HELD_BYTES = 16 * 1024 * 1024
"""An answer longer than this is not held back: it counts as rejected."""


@dataclass(slots=True)
class PlanRun:
    """One plan on its way."""

    request: InferenceRequest
    order: CallOrder
    planned: PlanToCarryOut
    dispatch: Callable[..., Awaitable[OpenedResponse]]
    """`Dispatcher.open` with all arguments that do not differ between the calls of one request."""
    owner: str
    attempts: list[Attempt]
    started: float


@dataclass(slots=True)
class PlanMember:
    """One member of a plan: its call, and what came of it."""

    expert: Expert
    opened: OpenedResponse | None = None
    held: bytearray = field(default_factory=bytearray)
    """Bytes of its response so far."""
    answers: Answers = field(default_factory=dict)
    observer: StreamObserver | None = None
    finished: bool = False
    """Whether its answer is complete."""
    slots: int = 1
    """Slots that it holds; 0 once they are released."""
    began: float = 0.0
    recorded: bool = False
    """Whether an attempt of it is in the list already, or will be as the one that responded."""
    attempt: Attempt | None = None
    """Its attempt in the list."""

    def release(self, owner: str) -> None:
        if self.slots:
            self.expert.slots.release(self.slots, owner)
            self.slots = 0


class PlanMembers:
    """The members of one plan while they answer; leaving the context ends whatever still runs."""

    def __init__(self, run: PlanRun, experts: list[Expert], clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock
        self._members = [PlanMember(expert, began=clock()) for expert in experts]
        self._asked = _asked_of_members(run.request, run.planned)
        self._p_right: float | None = None
        self._signals: Mapping[str, float | None] | None = None
        self._choice = 0
        """Index of the choice that is returned; only a vote has several."""
        self._given: PlanMember | None = None
        """The member whose slots and stream belong to the response now."""

    async def __aenter__(self) -> "PlanMembers":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.abort()

    async def hold(self, seconds: float) -> bool:
        """Let all members answer; false where they did not finish in time.

        A member that fails rejects the plan: there is nothing to judge.
        """
        tasks = [asyncio.create_task(self._answer(member)) for member in self._members]
        try:
            await asyncio.wait(tasks, timeout=max(0.0, seconds), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            pending = [task for task in tasks if not task.done()]
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        failure = next(
            (task.exception() for task in tasks if not task.cancelled() and task.exception()), None
        )
        if failure is not None and not isinstance(failure, ApiError | ExpertError):
            raise failure
        in_time = failure is not None or not pending
        if failure is None and in_time:
            self._p_right = self._judge()
        return in_time

    @property
    def accepted(self) -> PlanMember | None:
        """The member whose answer is accepted."""
        sure = self._p_right is not None and self._p_right >= self._run.planned.plan.at_least
        return self._members[0] if sure else None

    def best_finished(self) -> PlanMember | None:
        """The finished member with the highest score."""
        finished = [member for member in self._members if member.finished]
        scores = self._run.planned.scores
        return max(finished, key=lambda member: scores.get(member.expert.name) or 0.0, default=None)

    def result(self, why: str, *, accepted: bool) -> PlanResult:
        """What happened, for headers, metrics and the record."""
        planned = self._run.planned
        return PlanResult(planned.plan.name, accepted, why, self._p_right, planned.p_accept, self._signals)

    def respond(self, member: PlanMember, why: str) -> OpenedResponse:
        """The member's response, as the client would have got it from the expert alone."""
        if member.opened is None:
            raise RuntimeError("a member without a response is returned")
        self._given = member
        for other in self._members:
            if other is not member:
                self._record(other, "unused")
        result = self.result(why, accepted=why != "else_failed")
        if self._run.planned.plan.is_vote:
            total = member.observer.usage() if member.observer is not None else None
            kept = self._kept_tokens(member)
            result = replace(result, unreturned_tokens=max(0, (total[1] if total else 0) - kept))
        slots, member.slots = member.slots, 0
        member.recorded = True
        return replace(
            member.opened,
            stream=self._stream(member, member.opened.stream),
            attempts=(*self._run.attempts, member.opened.attempts[-1]),
            ttft_s=self._clock() - self._run.started,
            slots_held=slots,
            plan=result,
        )

    def forget(self, member: PlanMember) -> None:
        """Take a member out of the attempts: its answer is returned after all."""
        if member.attempt is not None:
            self._run.attempts.remove(member.attempt)

    async def abort(self) -> None:
        """End what still runs, release its slots, and note what it consumed."""
        for member in self._members:
            if member is self._given:
                continue
            if member.opened is not None and not member.finished:
                try:
                    await member.opened.stream.aclose()
                except ExpertError as error:
                    logger.info("expert %s failed while its stream was closed: %s", error.expert, error.why)
            member.release(self._run.owner)
            self._record(member, "rejected")

    async def _answer(self, member: PlanMember) -> None:
        """Call one member, and read its answer as far as the plan judges it."""
        own: list[Attempt] = []
        order = CallOrder((member.expert.name,), "routed", False, self._run.order.decision)
        try:
            member.opened = await self._run.dispatch(
                self._asked, order, max_attempts=1, failed=own, holds_slot=True
            )
        except BaseException:
            member.slots = 0  # the dispatcher released it
            member.recorded = True
            samples = self._run.planned.plan.samples
            self._run.attempts += [replace(attempt, samples=samples) for attempt in own]
            raise
        member.slots = member.opened.slots_held
        stream = member.opened.stream
        endpoint = self._asked.endpoint
        member.held += stream.head.body
        if not self._asked.stream:
            member.observer = StreamObserver(endpoint, streamed=False)
            member.observer.tail = bytes(member.held)
            member.answers = answers_of(bytes(member.held), endpoint)
            member.finished = True
            return
        try:
            await self._read_stream(member, stream)
        except ExpertError:
            member.opened.broke()
            raise
        if member.observer is not None and member.observer.failed:
            member.opened.broke()

    async def _read_stream(self, member: PlanMember, stream: ResponseStream) -> None:
        reader = StreamedAnswers(self._asked.endpoint)
        member.answers = reader.answers
        member.observer = observer = StreamObserver(self._asked.endpoint, streamed=True)
        seen = 0
        needed = self._run.planned.plan.hold_tokens
        while True:
            if (end := end_of_events(member.held, seen)) > seen:
                events = bytes(member.held[seen:end])
                seen = end
                observer.saw(events)
                reader.saw(events)
            enough = needed is not None and len(reader.answers.get(0, Answer()).logprobs) >= needed
            if enough or len(member.held) > MAX_HELD_BYTES:
                return
            chunk = await anext(stream.rest, None)
            if chunk is None:
                break
            member.held += chunk
        member.finished = observer.ended and not observer.failed

    def _judge(self) -> float | None:
        """The probability that the answer at hand is right; `None` where it cannot be judged."""
        plan, readings = self._run.planned.plan, self._readings()
        if readings is None:
            return None
        member = self._members[0]
        score = self._run.planned.scores.get(member.expert.name)
        signals = signals_of(plan, readings, score=score)
        self._signals = {
            name: None if value is None else float(value) for name, value in asdict(signals).items()
        }
        if plan.is_vote:
            self._choice = sorted(member.answers)[at_hand(plan, readings)]
        check = None if plan.hold_tokens else caller_check(self._run.request)
        if check is not None and not check(member.answers[self._choice]):
            return 0.0
        return self._run.planned.model.p_right(signals)

    def _readings(self) -> list[Reading] | None:
        plan = self._run.planned.plan
        if plan.hold_tokens is not None:
            logprobs = self._members[0].answers.get(0, Answer()).logprobs
            return [read_beginning(logprobs, plan.hold_tokens)] if logprobs else None
        if not all(member.finished for member in self._members):
            return None
        answers = [answer for member in self._members for _, answer in sorted(member.answers.items())]
        if len(answers) != len(plan.ask) * plan.samples:
            return None
        form = required_form(self._run.request)
        return [
            read(
                answer.text,
                logprobs=answer.logprobs or None,
                finish_reason=answer.finish_reason,
                valid=None if form is None else form(answer),
            )
            for answer in answers
        ]

    def _kept_tokens(self, member: PlanMember) -> int:
        """Completion tokens of the choice of a vote that is returned; 0 where they are unknown."""
        return len(member.answers[self._choice].logprobs) if self._choice in member.answers else 0

    def _stream(self, member: PlanMember, stream: ResponseStream) -> ResponseStream:
        """A member's response without what only the plan requested; untouched where it requested nothing."""
        bare = self._asked is not self._run.request
        held = bytes(member.held)
        streamed = self._asked.stream
        if self._run.planned.plan.is_vote:
            change = only_choice_events if streamed else only_choice
            held = change(held, self._choice, self._kept_tokens(member) or None)
        if bare and not streamed:
            held = without_logprobs(held)
        head = replace(stream.head, body=held, complete=not streamed or member.finished)
        if not (bare and streamed):
            return ResponseStream(head, stream.rest, stream.connected_s)
        end = end_of_events(held)
        head = replace(head, body=events_without_logprobs(held[:end]))
        return ResponseStream(head, _bare(held[end:], stream.rest), stream.connected_s)

    def _record(self, member: PlanMember, outcome: str) -> None:
        """Put a call that is not relayed among the attempts, with the tokens that it consumed."""
        if member.recorded:
            return
        member.recorded = True
        usage = None if member.observer is None else member.observer.usage()
        seconds = self._clock() - member.began
        if member.opened is None:
            return  # never called
        seen = 0 if member.observer is None else member.observer.most_tokens()
        member.attempt = Attempt(
            member.expert.name,
            outcome,
            seconds,
            began=True,
            usage=usage if member.finished else None,
            most_seen=None if member.finished else seen,
            samples=self._run.planned.plan.samples,
        )
        self._run.attempts.append(member.attempt)


def _asked_of_members(request: InferenceRequest, planned: PlanToCarryOut) -> InferenceRequest:
    """The request as members get it: with log-probabilities and samples where the plan reads them."""
    changes = logprobs_field(request.endpoint) if planned.reads_logprobs else {}
    samples = planned.plan.samples
    if samples > 1:
        changes["n"] = samples
    if not changes:
        return request
    return replace(request.with_fields(**changes), sequences=request.sequences * samples)


async def _bare(pending: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The rest of a stream without log-probabilities, whole events at a time."""
    buffer = bytearray(pending)
    try:
        async for chunk in rest:
            searched = len(buffer)
            buffer += chunk
            if end := end_of_events(buffer, searched):
                yield events_without_logprobs(bytes(buffer[:end]))
                del buffer[:end]
        if buffer:
            yield bytes(buffer)
    finally:
        await rest.aclose()
