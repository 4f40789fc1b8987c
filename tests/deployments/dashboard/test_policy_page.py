"""Policy in a real browser, on the real ingress with fakes behind it."""

from typing import Any

import pytest

from tests.deployments.dashboard.graph import Graph


@pytest.mark.parametrize(
    ("in_use", "quality"),
    [({"cost_weight": 0.3}, "0.8"), ({"cost_weight": 0.01}, "0.9"), ({"min_quality": 0.9}, None)],
    ids=["another weight than the policy's own", "the policy's own", "no weight at all"],
)
def test_the_curve_marks_the_preference_in_use(
    graph: Graph, tab: Any, in_use: dict[str, float], quality: str | None
) -> None:
    row = {"quality": 0.5, "cost_usd": 1e-6}
    points = [(0.0, 0.95, 4e-6), (0.01, 0.9, 3e-6), (0.28, 0.8, 2e-6), (5.0, 0.5, 1e-6)]
    report = {
        "n_queries": 10, "quality_gain": None, "aiq": None, "cost_saved_at_equal_quality": None,
        "curve": [dict(zip(("cost_weight", "quality", "cost_usd"), point, strict=True)) for point in points],
        "policy": {"quality": 0.9, "cost_usd": 3e-6, "preferences": {"cost_weight": 0.01}},
        "experts": {"words": row}, "oracle": row, "random": row,
    }  # fmt: skip
    preferences = {"cost_weight": None, "min_quality": None, **in_use}
    card = {
        "policy_id": "0123456789ab", "preferences": preferences, "report": report, "experts": ["words"],
        "prices": {"words": {"input": 1, "output": 2}},
    }  # fmt: skip
    tab.route("**/page/data/policy", lambda route: route.fulfill(json=card))
    tab.goto(f"{graph.url}/policy")
    tab.wait_for_selector("#curve svg circle")

    table = {
        cells[0].text_content().strip(): cells[1].text_content()
        for line in tab.locator("#curve-table tbody tr").all()
        if (cells := line.locator("th, td").all())
    }
    assert table.get("in use") == quality
    assert ("in use" in tab.locator("#curve svg").text_content()) == (quality is not None)


def shown_card(**fields: Any) -> dict[str, Any]:
    """The data of Policy with an evaluation: an expert, a plan and the oracle."""
    row = {"quality": 0.5, "cost_usd": 1e-6}
    sent = {"words": 0.75, "check": 0.25}
    example = {"query": "Spell <b>cat</b>", "task": "spelling", "sent": "words", "score": 0.4}
    report = {
        "n_queries": 4, "quality_gain": None, "aiq": None, "cost_saved_at_equal_quality": None,
        "curve": [{"cost_weight": 0.0, **row}, {"cost_weight": 1.0, "quality": 0.4, "cost_usd": 5e-7}],
        "policy": {**row, "preferences": {"cost_weight": 0.0}},
        "experts": {"words": row, "check": {"plan": True, **row}}, "oracle": row, "random": row,
        "reliability": {"words": [{"predicted": 0.4, "observed": 0.5, "n": 4}]},
        "calibration": {"words": 0.1},
        "winners": {"spelling": {"n": 4, "experts": {"words": 1.0}, "sent": sent}}, "traffic": sent,
        "examples": [{**example, "best": ["words"]}],
    }  # fmt: skip
    plan = {"ask": ["words"], "samples": 1, "at_least": 0.8, "else": "generalist"}
    card = {
        "policy_id": "0123456789ab", "preferences": {"cost_weight": 0.0}, "report": report,
        "experts": ["words"], "prices": {"words": {"input": 1, "output": 2}}, "plans": {"check": plan},
        "about": {"words": {"description": "spelling", "example": None}},
        "is_prior": False, "card": "# A card",
    }  # fmt: skip
    return {**card, **fields}


def test_the_policy_page_shows_plans_oracle_and_examples(graph: Graph, tab: Any) -> None:
    tab.route("**/page/data/policy", lambda route: route.fulfill(json=shown_card()))
    tab.goto(f"{graph.url}/policy")
    tab.wait_for_selector("#curve svg rect")

    legend = tab.inner_text("#curve-table .legend")
    assert "words alone" in legend
    assert "plan check always" in legend
    assert "oracle" in legend
    assert "in use" in tab.locator("#curve svg").text_content()
    assert "Spell <b>cat</b>" in tab.inner_text("#choices")
    assert "75.0 %" in tab.locator("#wins table").first.inner_text()
    assert "generalist" in tab.inner_text("#plans")
    assert "spelling" in tab.inner_text("#experts")
    assert tab.is_hidden("#prior")


def test_a_policy_from_priors_is_marked_and_has_no_empty_section(graph: Graph, tab: Any) -> None:
    card = shown_card(report=None, is_prior=True, card=None, plans={}, why=["made from priors"])
    tab.route("**/page/data/policy", lambda route: route.fulfill(json=card))
    tab.goto(f"{graph.url}/policy")
    tab.wait_for_selector("#prior:visible")

    assert "priors" in tab.inner_text("#facts")
    assert tab.locator("main section:visible h2").all_inner_texts() == ["Policy in effect", "Experts"]
