"""What a request spent on calls whose responses it did not return: those of a plan's members.

Tokens as the experts reported them, else as they were seen. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.contracts.requests import InferenceRequest
from deployments.upstream.attempts import Attempt
from router.experts import Price


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one call."""

    expert: str
    prompt: int
    completion: int

    def usd(self, prices: Mapping[str, Price]) -> float | None:
        """Their cost; `None` where the expert has no price."""
        price = prices.get(self.expert)
        return None if price is None else price.cost_usd(self.prompt, self.completion)


def spent_on(attempt: Attempt, request: InferenceRequest) -> Spent | None:
    """What an attempt spent; `None` where it is unknown, or the attempt is the one that was returned."""
    if attempt.usage is not None:
        return Spent(attempt.expert, *attempt.usage)
    if attempt.most_seen is not None:
        return Spent(attempt.expert, request.prompt_tokens, attempt.most_seen)
    return None


def spent_aside(
    attempts: Sequence[Attempt], request: InferenceRequest, returned: str | None, unreturned_tokens: int
) -> list[Spent]:
    """All that a request spent beside the returned response.

    Args:
        attempts: all calls.
        request: the request.
        returned: the expert whose response was returned; `None` for none.
        unreturned_tokens: completion tokens of a vote's other samples.
    """
    spent = [found for attempt in attempts if (found := spent_on(attempt, request)) is not None]
    if returned is not None and unreturned_tokens:
        spent.append(Spent(returned, 0, unreturned_tokens))
    return spent
