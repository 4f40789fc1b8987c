"""References between the parts of a configuration."""

from typing import Any

import pytest

from cluster.check.references import check_references
from tests.cluster.configs import expert, good


def findings(applications: list[dict[str, Any]], *, policy: bool = True) -> list[tuple[str, str, str]]:
    return [(f.level, f.key, f.message) for f in check_references(applications, policy=policy)]


def test_a_good_configuration_has_no_findings() -> None:
    assert findings(good()["applications"]) == []


def test_without_an_ingress_nothing_else_is_checked() -> None:
    ((level, key, message),) = findings([expert("sums")])

    assert (level, key) == ("error", "applications")
    assert "there is no ingress" in message


@pytest.mark.parametrize("key", ["name", "route_prefix"])
def test_a_duplicate_is_an_error(key: str) -> None:
    applications = good()["applications"]
    applications[1]["route_prefix"], applications[2]["route_prefix"] = "/a", "/b"
    applications[2][key] = applications[1][key]

    assert ("error", f"applications[].{key}", f"{applications[1][key]!r} is duplicated") in findings(
        applications
    )


@pytest.mark.parametrize("deployment", [0, 1])
def test_a_missing_user_config_is_an_error(deployment: int) -> None:
    applications = good()["applications"]
    part = applications[0]["deployments"][deployment]
    del part["user_config"]

    assert ("error", f"to-router.{part['name']}.user_config", "is missing") in findings(applications)


def test_the_policy_is_not_read_on_request() -> None:
    applications = good()["applications"]
    applications[0]["deployments"][1]["user_config"]["policy"] = "no/such/policy"

    assert findings(applications, policy=False) == []
    assert "cannot be served" in findings(applications)[0][2]
