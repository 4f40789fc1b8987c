"""A decision as a table for the terminal, with the columns of the page.

Prints what `/v1/route` returned, the reasons included; knows nothing of the rule behind them. Pure.
"""

from collections.abc import Mapping
from typing import Any


def table(decision: Mapping[str, Any], expert: str | None) -> list[str]:
    """Lines with each candidate's predicted quality as a bar, cost, wait and reason.

    Args:
        decision: the body that `/v1/route` returned.
        expert: the one that the answer came from; `None` marks the first of the ranking.
    """
    views = {**decision["experts"], **{name: _plan(view) for name, view in decision.get("plans", {}).items()}}
    ranking = [name for name in decision["ranking"] if name in views]
    names = [*ranking, *(name for name in views if name not in ranking)]
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        view = views[name]
        score = view["score"]
        bar = "-" * 10 if score is None else ("█" * round(10 * score)).ljust(10, "·")
        quality = "   –" if score is None else f"{score:.2f}"
        wait = "–" if view["ttft_ms"] is None else f"{view['ttft_ms']:.0f} ms"
        mark = "→" if name == (expert or decision["expert"]) else " "
        cost = dollars(view["cost_usd"])
        lines.append(f"{mark} {name:<{width}}  {bar} {quality}  {cost:>12}  {wait:>8}  {view['reason']}")
    return lines


def _plan(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan's view, its reason with the steps."""
    times = f" {view['samples']} times" if view["samples"] > 1 else ""
    steps = (
        f"calls {' and '.join(view['ask'])}{times}, accepts {view['p_accept']:.0%} of such answers, "
        f"else {view['else']}"
    )
    return {**view, "reason": f"{view['reason']}; {steps}"}


def dollars(value: float | None) -> str:
    """An amount with three significant digits."""
    if value is None:
        return "no price"
    if value == 0 or value >= 0.001:
        return f"${value:.4f}"
    return f"${float(f'{value:.3g}'):.12f}".rstrip("0")
