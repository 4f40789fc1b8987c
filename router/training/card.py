"""A policy's CARD.md, for people who find the folder without its author."""

import json
from collections.abc import Sequence

from router.policy import Policy


def card(policy: Policy, notes: Sequence[str] = ()) -> str:
    """The card's Markdown: method, data, figures, use and limits; `notes` are lines added at the end."""
    training = policy.training
    metrics = training.get("metrics") or {}
    lines = [
        "# Routing policy",
        "",
        f"Predicts how well each of {len(policy.pool)} experts would answer a query, and weighs that "
        "against cost.",
        "",
        f"- Method: {policy.method.name}, parameters {json.dumps(policy.method.params)}",
        f"- Encoder: {policy.encoder.id} ({policy.encoder.sha256[:12]})",
        f"- Candidate pool, in column order: {', '.join(policy.pool.names)}",
        f"- Trained on {training.get('n_queries')} queries (data {str(training.get('data_sha256'))[:12]}, "
        f"seed {training.get('seed')})",
        f"- Best single expert on the training data: {training.get('best_single')}",
        f"- Default preference: cost_weight {policy.preferences.cost_weight:g}"
        if policy.preferences.cost_weight is not None
        else f"- Default preference: min_quality {policy.preferences.min_quality}",
    ]
    out_of_fold = metrics.get("out_of_fold", {})
    for name, what in (
        ("best_quality", "at best quality"),
        ("default", "at the default preference"),
        ("equal_quality", "at the most saving for the best single expert's quality"),
    ):
        figures = out_of_fold.get(name) or {}
        if "gain" in figures:
            lines.append(
                f"- Out of fold {what} (cost_weight {figures['cost_weight']:g}): quality "
                f"{figures['gain']:+.4f} against the best single expert, {figures['saved']:.1%} of its "
                "cost saved"
            )
    lines += [
        "",
        "## Experts",
        "",
        "| expert | mean quality in training | US$ per million tokens in / out |",
        "|---|---|---|",
    ]
    means = metrics.get("expert_means", {})
    for expert in policy.pool:
        price = "unknown" if expert.price is None else f"{expert.price.input:g} / {expert.price.output:g}"
        mean = f"{means[expert.name]:.4f}" if expert.name in means else "unknown"
        lines.append(f"| {expert.name} | {mean} | {price} |")
    lines += _plans(policy)
    lines += [
        "",
        "## Use",
        "",
        "Name this folder as `policy` in the `user_config` of the deployment `Router`, or call it directly: "
        '`to-router route --policy DIR "a query"`.',
        "",
        "## Limits",
        "",
        "- It knows queries like those it was trained on; far from them it falls back to the experts' mean "
        "quality and reports `unfamiliar`.",
        "- It predicts quality as its outcomes measured it, whatever the measure was.",
        "- No query text is stored in this folder.",
    ]
    return "\n".join([*lines, *notes]) + "\n"


def _plans(policy: Policy) -> list[str]:
    """The plans, with what they gave on the training queries."""
    if policy.plans is None:
        return []
    facts = (policy.training.get("metrics") or {}).get("plans", {})
    lines = [
        "",
        "## Plans",
        "",
        f"Kept {facts.get('kept')} of {facts.get('tried')} that were tried.",
        "",
        "| plan | members | accepts at | else | acceptance rate | precision | quality |",
        "|---|---|---|---|---|---|---|",
    ]
    for plan in policy.plans.plans:
        figures = facts.get("plans", {}).get(plan.name, {})
        cells = [figures.get(name) for name in ("acceptance_rate", "precision", "quality")]
        shown = " | ".join("–" if value is None else f"{value:.3f}" for value in cells)
        members = ", ".join(plan.ask) + (f" × {plan.samples}" if plan.is_vote else "")
        lines.append(f"| {plan.name} | {members} | {plan.at_least:g} | {plan.otherwise} | {shown} |")
    return lines
