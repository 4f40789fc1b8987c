"""References between the parts of a configuration."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cluster.check.references import check_references
from deployments.config import CanarySettings
from deployments.last_good import LastGood
from deployments.settings import resolve
from router.policy import Policy
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


def router_of(applications: list[dict[str, Any]]) -> dict[str, Any]:
    config: dict[str, Any] = applications[0]["deployments"][1]["user_config"]
    return config


@pytest.mark.parametrize("key", ["shadow", "canary.policy"])
def test_a_policy_beside_the_one_in_effect_must_exist(key: str) -> None:
    applications = good()["applications"]
    folder = "no/such/policy"
    router_of(applications).update({"shadow": folder} if key == "shadow" else {"canary": {"policy": folder}})

    ((level, found, message),) = findings(applications)
    assert (level, found) == ("error", f"to-router.Router.user_config.{key}")
    assert "cannot be served" in message


def test_a_date_must_be_quoted() -> None:
    applications = good()["applications"]
    config = router_of(applications)
    config["canary"] = {"policy": config["policy"], "until": date(2100, 1, 1)}

    assert ("error", "to-router.Router.user_config.canary.until") in [
        (level, key) for level, key, _ in findings(applications)
    ]
    config["canary"]["until"] = "2100-01-01"
    assert findings(applications) == []


def test_a_canary_that_is_rolled_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TO_ROUTER_STATE", str(tmp_path))
    applications = good()["applications"]
    config = router_of(applications)
    config["canary"] = {"policy": config["policy"], "share": 0.1}
    id_ = Policy.load(resolve(config["policy"])).policy_id
    canary = CanarySettings.model_validate(config["canary"]).identity(id_, id_)
    LastGood(lambda: Path("to-router", "Router")).save_rollback(canary, id_, "quality -10 points")

    ((level, key, message),) = findings(applications)
    assert (level, key) == ("warning", "to-router.Router.user_config.canary")
    assert "quality -10 points" in message
    config["canary"]["share"] = 0.2  # another canary
    assert findings(applications) == []
