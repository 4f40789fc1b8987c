"""Experts, models and prices of a serve_config.yaml."""

from pathlib import Path

import pytest
import yaml

from deployments.prior_experts import experts_of_config
from deployments.settings import project_root
from router.errors import InputError


def test_the_default_graph_has_its_experts_models_and_prices() -> None:
    file = Path(project_root()) / "serve_config.yaml"

    found = experts_of_config(yaml.safe_load(file.read_text(encoding="utf-8")), str(file))

    assert [expert.profile.name for expert in found] == ["arithmetic", "words", "atlas", "chat"]
    assert all(expert.config is not None for expert in found)
    assert all(expert.profile.price is not None for expert in found)
    assert [expert.profile.context_window for expert in found] == [512, 512, 512, 2048]


def test_an_expert_elsewhere_is_known_by_its_model() -> None:
    ingress = {"experts": {"far": {"url": "https://example.org/v1", "model": "Qwen/Qwen3-32B"}}}
    config = {"applications": [{"deployments": [{"name": "Ingress", "user_config": ingress}]}]}

    (expert,) = experts_of_config(config, "here")

    assert (expert.profile.name, expert.model) == ("far", "Qwen/Qwen3-32B")


@pytest.mark.parametrize("config", [{}, {"applications": []}, {"applications": [{"deployments": []}]}])
def test_a_file_without_experts_is_an_error(config: dict[str, object]) -> None:
    with pytest.raises(InputError):
        experts_of_config(config, "here")
