"""The order of calls says the same to everything that reads it."""

from deployments.contracts.call_order import CallOrder
from router.core import Decision, ExpertView


def view(score: float | None) -> ExpertView:
    return ExpertView(score, None, None, eligible=True, utility=score)


DECISION = Decision(("large", "small"), {"small": view(0.5), "large": view(0.9)}, "0123456789ab")
NO_SCORES = {"small": view(None), "large": view(None)}


def test_sentences_are_those_of_the_decision() -> None:
    order = CallOrder(("large", "small"), "routed", True, DECISION)

    assert order.sentences() == {"large": "highest predicted quality", "small": "lower predicted quality"}
    assert order.policy_id == "0123456789ab"


def test_sentence_of_an_expert_without_replica_says_so() -> None:
    order = CallOrder(("small", "large"), "routed", True, DECISION, scale_up=("large",))

    assert order.sentences() == {
        "large": "highest predicted quality; no replica runs, so the next in the ranking responds",
        "small": "lower predicted quality",
    }


def test_expert_that_starts_with_the_request_keeps_its_sentence() -> None:
    order = CallOrder(("large", "small"), "routed", True, DECISION, scale_up=("large",))

    assert order.sentences()["large"] == "highest predicted quality"


def test_named_expert_has_no_policy_and_is_named() -> None:
    decision = Decision(("small", "large"), NO_SCORES, policy_id="")
    order = CallOrder(("small", "large"), "named", True, decision, named="small")

    assert order.policy_id is None
    assert order.sentences() == {"small": "named by the request", "large": "fallback of the named expert"}


def test_reason_of_any_but_the_first_is_fallback() -> None:
    order = CallOrder(("large", "small"), "routed", True, DECISION)
    starting = CallOrder(("large", "small"), "named", True, DECISION, named="small")

    assert (order.reason_for("large"), order.reason_for("small")) == ("routed", "fallback_expert")
    assert (starting.reason_for("small"), starting.reason_for("large")) == ("named", "fallback_expert")
