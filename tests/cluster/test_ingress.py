"""The ingress of a configuration from outside: addresses, keys, the deadline."""

from typing import Any

import pytest

from cluster.ingress import is_exposed, key_file, request_timeout_s
from deployments.config import REQUEST_TIMEOUT_S
from tests.cluster.configs import good


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "router.example", None, 3])  # noqa: S104
def test_an_address_off_loopback_is_exposed(host: object) -> None:
    assert is_exposed(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_loopback_is_not_exposed(host: str) -> None:
    assert not is_exposed(host)


@pytest.mark.parametrize(
    "config",
    [{}, {"applications": None}, {"applications": ["x"]}, {"applications": 3},
     {"applications": [{"import_path": "deployments.app:build_app", "args": [], "deployments": "x"}]}],
)  # fmt: skip
def test_any_shape_is_read(config: dict[str, Any]) -> None:
    assert key_file(config) is None
    assert request_timeout_s(config) == REQUEST_TIMEOUT_S


def test_keys_and_deadline_are_those_of_the_configuration() -> None:
    config = good()
    config["applications"][0]["args"]["ingress"]["request_timeout_s"] = 90
    config["applications"][0]["deployments"][0]["user_config"]["keys"] = {"file": "/k/keys.json"}

    assert (key_file(config), request_timeout_s(config)) == ("/k/keys.json", 90)
