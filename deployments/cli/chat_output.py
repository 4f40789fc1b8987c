"""Answers and explanations on a terminal.

Text of a model is printed without the control characters that could control the terminal.
"""

from typing import Any, TextIO

from deployments.cli.chat_client import Answer
from deployments.dashboard.explain import dollars, table
from router.validation import printable


class ChatOutput:
    """Prints to one stream, piece by piece.

    Args:
        out: where the text goes.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._in_reasoning = False

    def write(self, text: str) -> None:
        """Print at once."""
        self._out.write(text)
        self._out.flush()

    def reasoning(self, text: str) -> None:
        """Print a piece of reasoning, under a heading of its own."""
        if text and not self._in_reasoning:
            self.write("[reasoning]\n")
            self._in_reasoning = True
        self.write(printable(text))

    def text(self, text: str) -> None:
        """Print a piece of the answer, apart from reasoning before it."""
        if text and self._in_reasoning:
            self.write("\n[answer]\n")
            self._in_reasoning = False
        self.write(printable(text))

    def end(self, answer: Answer) -> None:
        """End the line of an answer, and print its error."""
        self._in_reasoning = False
        self.write("\n" if answer.error is None else f"\n[{printable(answer.error)}]\n")

    def explain(self, decision: dict[str, Any], answer: Answer, cost_usd: float | None) -> None:
        """Print which expert answered, after which attempts, and the reason for each expert."""
        lines = [f"— {answer.expert} · {numbers(answer, cost_usd)}"]
        if answer.reason == "fallback_router":
            lines.append("  the router gave no decision in time: the policy's static ranking was used")
        if answer.plan is not None:
            plan = decision["plans"].get(answer.plan, {})
            asked = " and ".join(plan.get("ask", ()))
            verdict = "accepted" if answer.accepted else f"not accepted: {plan.get('else')} was called"
            lines.append(f"  plan {answer.plan}: {asked} answered, {verdict}")
        elif answer.attempts > 1:
            failed = [name for name in decision["ranking"] if name != answer.expert][: answer.attempts - 1]
            lines.append(f"  {answer.attempts} experts were tried: {', '.join(failed)} gave no answer")
        lines += table(decision, answer.expert)
        self.write("\n".join(lines) + "\n")


def numbers(answer: Answer, cost_usd: float | None) -> str:
    """Times, tokens and dollars of an answer, as far as they are known."""
    parts = [f"first byte {answer.first_s * 1000:.0f} ms, total {answer.total_s * 1000:.0f} ms"]
    if answer.usage:
        parts.append(f"{answer.usage.get('prompt_tokens')} + {answer.usage.get('completion_tokens')} tokens")
    if cost_usd is not None:
        parts.append(dollars(cost_usd))
    return " · ".join(parts)
