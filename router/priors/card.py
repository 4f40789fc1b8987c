"""The CARD.md of a policy made from priors, for people who find the folder without its author."""

from router.policy import Policy
from router.priors.catalogue import KINDS, Catalogue

ORIGINS = {
    "catalogue": "public outcomes of this model ({rows} rows)",
    "facts": "facts only: no source lists this model",
    "nothing": "nothing is known of this model: the interval is that of any model",
}


def card(policy: Policy, catalogue: Catalogue) -> str:
    """The card's Markdown: what every expert's prior rests on, its intervals, and the next step."""
    prior, measured = policy.training["prior"], policy.training["n_queries"]
    lines = [
        "# Routing policy: prior",
        "",
        "It recognises the kind of task of a query, and expects of each expert what public outcomes and its",
        "facts say. "
        + (
            f"Joined with the outcomes of {measured} probes."
            if measured
            else "No outcome of these experts was measured: a start, not a measurement."
        ),
        "",
        f"- Method: {policy.method.name}",
        f"- Encoder: {policy.encoder.id} ({policy.encoder.sha256[:12]})",
        f"- Candidate pool, in column order: {', '.join(policy.pool.names)}",
        f"- Best single expert: {policy.training['best_single']}",
        f"- Default preference: cost_weight {policy.preferences.cost_weight:g}",
        "",
        "## Expected quality before any outcome, with intervals of 90 %",
        "",
        f"| expert | {' | '.join(KINDS)} |",
        f"|---|{'---|' * len(KINDS)}",
    ]
    for expert in policy.pool:
        cells = [_interval(*prior[expert.name]["kinds"][kind]) for kind in KINDS]
        lines.append(f"| {expert.name} | {' | '.join(cells)} |")
    lines += [
        "",
        "## What it rests on",
        "",
        "| expert | model | prior from | US$ per million tokens in / out |",
    ]
    lines.append("|---|---|---|---|")
    for expert in policy.pool:
        about = prior[expert.name]
        origin = ORIGINS[about["origin"]].format(rows=about["catalogue_rows"])
        price = "unknown" if expert.price is None else f"{expert.price.input:g} / {expert.price.output:g}"
        lines.append(f"| {expert.name} | {about['model']} | {origin} | {price} |")
    lines += ["", "Sources of the catalogue:", ""]
    for name, source in sorted(catalogue.sources.items()):
        lines.append(f"- {name}: {source.title}, {source.licence}, read on {source.read}: {source.address}")
    lines += [
        "",
        "## Next step",
        "",
        "`to-router start --probe` measures the experts on a few probes with checkable answers;",
        "`to-router train` on outcomes of your own queries replaces the prior.",
        "",
        "## Limits",
        "",
        "- Benchmarks are not your queries: the order of the experts is more certain than their values.",
        "- Queries unlike all examples get the experts' mean expectation and are reported as `unfamiliar`.",
        "- No query text is stored in this folder.",
    ]
    return "\n".join(lines) + "\n"


def _interval(quality: float, low: float, high: float) -> str:
    return f"{quality:.2f} ({low:.2f}–{high:.2f})"
