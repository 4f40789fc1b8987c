"""Carry out plans: call the members, judge their answers, return one or call the `else` expert.

No byte leaves before acceptance. Knows nothing of HTTP clients: it returns an opened response, as the
dispatcher does, which calls each expert for it.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from deployments.contracts.call_order import CallOrder, PlanToCarryOut
from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import ApiError
from deployments.contracts.messages import Headers
from deployments.contracts.requests import InferenceRequest
from deployments.upstream.attempts import Attempt, OpenedResponse, PlanResult
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.expert import Expert
from deployments.upstream.plan_members import PlanMembers, PlanRun
from deployments.upstream.registry import ExpertRegistry


class PlanExecutor:
    """Opens responses: by a plan where the call order has one, else through the dispatcher alone.

    Args:
        registry: the experts.
        dispatcher: calls them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        dispatcher: Dispatcher,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._clock = clock

    async def open(
        self,
        request: InferenceRequest,
        order: CallOrder,
        headers: Headers,
        deadline: Deadline,
        *,
        max_attempts: int | None = None,
        failed: list[Attempt] | None = None,
        cache_salt: str | None = None,
        owner: str = "",
    ) -> OpenedResponse:
        """Open a response; arguments and errors are those of `Dispatcher.open`.

        Every call of a member that is not relayed is in `failed` or in the response's attempts, with its
        tokens where they are known.
        """
        attempts = [] if failed is None else failed
        dispatch = partial(
            self._dispatcher.open, headers=headers, deadline=deadline, cache_salt=cache_salt, owner=owner
        )
        members = None if order.plan is None else self._acquire(order.plan, owner)
        if order.plan is None or members is None:
            opened = await dispatch(request, order, max_attempts=max_attempts, failed=attempts)
            if order.plan is None:
                return opened
            return replace(opened, plan=PlanResult(order.plan.plan.name, accepted=None, why="full"))
        run = PlanRun(request, order, order.plan, dispatch, owner, attempts, self._clock())
        async with PlanMembers(run, members, self._clock) as called:
            in_time = await called.hold(self._hold_s(deadline))
            accepted = called.accepted if in_time else called.best_finished()
            if accepted is not None:
                why = "accepted" if in_time else "overrun"
                return called.respond(accepted, why)
            await called.abort()
            return await self._otherwise(run, called, in_time=in_time)

    def _acquire(self, planned: PlanToCarryOut, owner: str) -> list[Expert] | None:
        """A slot at each member, or none at all: a plan never waits in two queues."""
        experts = self._registry.experts
        with ExitStack() as undo:
            for name in planned.plan.ask:
                expert = experts.get(name)
                if expert is None or not expert.breaker.available() or not expert.slots.try_acquire(owner):
                    return None
                undo.callback(expert.slots.release, 1, owner)
            undo.pop_all()
        return [experts[name] for name in planned.plan.ask]

    def _hold_s(self, deadline: Deadline) -> float:
        return min(deadline.left_s(), self._registry.config.limits.max_hold_s)

    async def _otherwise(self, run: PlanRun, called: PlanMembers, *, in_time: bool) -> OpenedResponse:
        """Call the `else` expert, live; where it fails too, a finished answer is better than none."""
        plan = run.planned.plan
        finished = called.best_finished()
        others = () if finished is not None else (n for n in run.order.ranking if n != plan.otherwise)
        order = replace(run.order, ranking=(plan.otherwise, *others), plan=None)
        result = called.result("rejected" if in_time else "overrun", accepted=False)
        before = tuple(run.attempts)
        own: list[Attempt] = []
        try:
            opened = await run.dispatch(run.request, order, failed=own)
        except ApiError:
            if finished is None:
                raise
            called.forget(finished)
            return called.respond(finished, "else_failed")
        finally:
            run.attempts += own
        attempts = (*before, *opened.attempts)
        return replace(opened, attempts=attempts, plan=result, ttft_s=self._clock() - run.started)
