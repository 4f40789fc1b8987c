"""What a request's key is charged: at least what the experts consumed, however the request ended.

Reported usage counts as it is. Where it is unknown, the most counts that the expert can have made: of a
response that was relayed by the bytes of its text, of any other by what was reserved. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.contracts.requests import InferenceRequest
from deployments.contracts.sse import StreamObserver
from deployments.upstream.attempts import Attempt
from router.experts import Price

UNCHARGED = frozenset({"overloaded", "ineligible"})
"""Outcomes of attempts that the expert rejected before it read the prompt."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request is charged with."""

    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(self.tokens + other.tokens, self.usd + other.usd)


def of_tokens(expert: str, prompt: int, completion: int, prices: Mapping[str, Price]) -> Charge:
    """The charge for tokens of an expert, at the highest price where it has none."""
    known = [prices[expert]] if expert in prices else prices.values()
    usd = max((price.cost_usd(prompt, completion) for price in known), default=0.0)
    return Charge(prompt + completion, usd)


def of_attempts(
    request: InferenceRequest, attempts: Sequence[Attempt], prices: Mapping[str, Price]
) -> Charge:
    """The charge for attempts without a response to relay: the prompt, and what may have been completed."""
    charge = Charge()
    for attempt in attempts:
        if attempt.usage is not None:
            charge += of_tokens(attempt.expert, *attempt.usage, prices)
        elif attempt.outcome not in UNCHARGED:
            completion = _most_completion(request, attempt)
            charge += of_tokens(attempt.expert, request.most_prompt_tokens, completion, prices)
    return charge


def _most_completion(request: InferenceRequest, attempt: Attempt) -> int:
    """The most completion tokens that an attempt of unknown usage can have made."""
    bound = request.most_completion_tokens * attempt.samples
    if attempt.most_seen is None:
        return bound if attempt.may_have_completed else 0
    return attempt.most_seen if request.max_tokens is None else min(attempt.most_seen, bound)


def of_response(
    request: InferenceRequest, expert: str, observer: StreamObserver, prices: Mapping[str, Price]
) -> Charge:
    """The charge for a response, complete or not."""
    usage = observer.usage()
    if usage is not None and observer.ended:
        return of_tokens(expert, *usage, prices)
    prompt, completion = usage or (0, 0)
    if request.endpoint.bounds:
        known = max(completion, observer.most_tokens())
        bound = max(completion, request.most_completion_tokens)
        completion = known if request.max_tokens is None else min(known, bound)
    return of_tokens(expert, max(prompt, request.most_prompt_tokens), completion, prices)
