"""Keeping a canary in a configuration's text: two spans change, and every other character stays."""

import difflib

import pytest
import yaml

from router.errors import InputError
from router.learning.keeping import keep

CONFIG = """\
# The graph.
applications:
  - name: to-router   # its name
    deployments:
      - name: Router
        user_config:
          # In effect since June.
          policy: var/policies/old   # a folder
          preferences: {cost_weight: 0.01}
          canary:                    # since Monday
            policy: "var/policies/new"
            share: 0.05              # of the conversations
            # Ends with the year.
            until: 2027-01-31
          # Prices of May.
          prices: &prices
            small: {input: 0.05, output: 0.10}

  - name: expert-small
    args: {name: small}
"""
WITHOUT = (
    "          canary:",
    "            policy:",
    "            share:",
    "            # Ends",
    "            until:",
)


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[:1] in "+-"]


def test_only_the_policy_and_the_canary_change() -> None:
    kept = keep(CONFIG)

    removed = [f"- {line}" for line in CONFIG.splitlines() if line.startswith(WITHOUT)]
    assert sorted(changed_lines(CONFIG, kept.text)) == sorted(
        [
            "-           policy: var/policies/old   # a folder",
            '+           policy: "var/policies/new"   # a folder',
            *removed,
        ]
    )
    assert (kept.policy, kept.before) == ("var/policies/new", "var/policies/old")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("a: {policy: old, canary: {policy: new, share: 0.1}, x: 1}", "a: {policy: new, x: 1}"),
        ("a: {canary: {policy: new}, policy: old}", "a: {policy: new}"),
        ("a: {canary: {policy: new}}", "a: {policy: new}"),
        ("a:\n  canary: {policy: new, share: 0.1}  # why\n  x: 1\n", "a:\n  policy: new  # why\n  x: 1\n"),
        ("a:\n  policy:\n  canary: {policy: new}", "a:\n  policy: new\n"),
        ("a:\r\n  policy: old\r\n  canary: {policy: new}\r\n", "a:\r\n  policy: new\r\n"),
        ("a: &a\n  policy: old\n  canary: {policy: new}\nb: *a\n", "a: &a\n  policy: new\nb: *a\n"),
    ],
)
def test_a_configuration_keeps_its_form(config: str, wanted: str) -> None:
    text = keep(config).text

    assert text == wanted
    assert yaml.safe_load(text) == yaml.safe_load(wanted)


def test_an_expert_or_a_price_may_be_called_canary() -> None:
    config = "a: {policy: old, canary: {policy: new}}\nb: {canary: {input: 1}}\nc: {canary: {app: d}}\n"

    assert keep(config).text == config.replace("policy: old, canary: {policy: new}", "policy: new")


def test_without_a_policy_that_of_priors_was_in_effect() -> None:
    assert keep("a: {canary: {policy: new}}").before is None


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("a: [", "is not YAML"),
        ("", "no canary"),
        ("a: {policy: old, canary: null}", "no canary"),
        ("a: {canary: {policy: x}}\nb: {canary: {policy: y}}", "several canaries"),
        ("a: {policy: old, canary: {share: 0.1}}", "without a `policy`"),
        ("c: &c {policy: new}\na: {policy: old, canary: *c}", "by hand"),
        ("p: &p old\na:\n  policy: *p\n  canary: {policy: new}", "by hand"),
        ("a: &a\n  policy: old\n  canary: {policy: new}\nb: {<<: *a, policy: other}", "by hand"),
    ],
)
def test_what_only_a_person_can_change_is_an_error(config: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        keep(config)
