"""Why an expert was chosen and the others were not, in words: as on the page, for the terminal.

Reads what `/v1/route` answers; the sums are those of the contract. Pure.
"""

from collections.abc import Mapping
from typing import Any


def reasons(decision: Mapping[str, Any], trade: Mapping[str, float | None] | None) -> dict[str, str]:
    """Expert → one sentence.

    Args:
        decision: the body of `/v1/route`.
        trade: `cost_weight` or `min_quality` in force; `None` where it is not known.
    """
    views, first = decision["experts"], decision["expert"]
    eligible = {name: view for name, view in views.items() if view["eligible"]}
    best = max((view["score"] or 0.0 for view in eligible.values()), default=0.0)
    dearest = max((view["cost_usd"] or 0.0 for view in eligible.values()), default=0.0)
    weight = (trade or {}).get("cost_weight") or 0.0
    floor = (trade or {}).get("min_quality")
    told = {}
    for name, view in views.items():
        if not view["eligible"]:
            told[name] = f"excluded: {view['excluded_because'] or 'not eligible'}"
        elif decision["reason"] == "named":
            told[name] = "named by the request" if name == first else "not asked for"
        elif view["score"] is None:
            told[name] = f"{'first' if name == first else 'later'} in the static ranking"
        elif floor is not None and view["score"] < floor * best:
            told[name] = f"not good enough: {view['score']:.2f}, needed {floor * best:.2f}"
        elif floor is not None:
            told[name] = (
                "cheapest that is good enough" if name == first else "good enough, but dearer or later"
            )
        elif weight:
            cost = weight * (view["cost_usd"] or 0.0) / dearest if dearest else 0.0
            worth = f"{view['score']:.2f} − {cost:.2f} for cost = {view['score'] - cost:.2f}"
            told[name] = f"{'best worth' if name == first else 'worth less'}: {worth}"
        elif name == first:
            told[name] = "chosen" if trade is None else "best predicted quality"
        else:
            told[name] = "ranked lower" if trade is None else "lower predicted quality"
    return told


def table(
    decision: Mapping[str, Any], trade: Mapping[str, float | None] | None, answered: str | None
) -> list[str]:
    """Lines with each expert's predicted quality as a bar, cost, wait and reason."""
    told = reasons(decision, trade)
    ranking = [*decision["ranking"], *(name for name in told if name not in decision["ranking"])]
    width = max(map(len, ranking), default=0)
    lines = []
    for name in ranking:
        if name not in told:
            continue
        view = decision["experts"][name]
        score = view["score"]
        bar = "-" * 10 if score is None else ("█" * round(10 * score)).ljust(10, "·")
        quality = "   –" if score is None else f"{score:.2f}"
        wait = "–" if view["ttft_ms"] is None else f"{view['ttft_ms']:.0f} ms"
        mark = "→" if name == (answered or decision["expert"]) else " "
        cost = dollars(view["cost_usd"])
        lines.append(f"{mark} {name:<{width}}  {bar} {quality}  {cost:>12}  {wait:>8}  {told[name]}")
    return lines


def dollars(value: float | None) -> str:
    """An amount with three digits that count."""
    if value is None:
        return "no price"
    if value == 0 or value >= 0.001:
        return f"${value:.4f}"
    return f"${float(f'{value:.3g}'):.12f}".rstrip("0")
