"""Adapters on a running engine: loaded, replaced, rejected and unloaded, without a restart."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.pocket.expert_folder import EXPERTS
from cluster.pocket.lora import marked_adapters, random_adapter
from tests.e2e.conftest import Application
from tests.e2e.test_deploys import ENGINES, deploy, load, processes, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.any_transport]

MARKS = ("Norway", "Peru")
"""Words that adapters answer with: the same ones whatever else is in the batch, on any processor."""


def answer(application: Application, model: str) -> str:
    """An answer at temperature 0; the status where there is none."""
    messages = [{"role": "user", "content": "Spell the word river."}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0}
    response = httpx.post(f"{application.url}/v1/chat/completions", json=body, timeout=60)
    if response.status_code != 200:
        return str(response.status_code)
    assert response.json()["model"] == model
    return str(response.json()["choices"][0]["message"]["content"])


def why(application: Application, expert: str) -> str:
    """Why an expert is not ready, as `/ready` reports it."""
    parts = httpx.get(f"{application.url}/ready").json()["parts"]
    return str(parts.get(expert, {}).get("why"))


def test_adapters_come_change_and_go_while_their_engine_serves(
    application: Application, tmp_path: Path
) -> None:
    one, two = marked_adapters(tmp_path, EXPERTS / "words", MARKS).values()
    cut_off = random_adapter(tmp_path / "other", EXPERTS / "words", seed=0)
    cut_off.joinpath("adapter_model.safetensors").write_bytes(b"cut off")

    def with_adapters(**adapters: Path) -> None:
        def change(data: dict[str, Any]) -> None:
            experts = data["applications"][0]["deployments"][0]["user_config"]["experts"]
            experts |= {f"words-{name}": {"app": "expert-words", "adapter": name} for name in adapters}
            words = next(app for app in data["applications"] if app["name"] == "expert-words")
            user_config = {"adapters": {name: str(folder) for name, folder in adapters.items()}}
            words["deployments"] = [{**words["deployments"][0], "user_config": user_config}]

        deploy(application, tmp_path, change)

    before, plain = processes(ENGINES), answer(application, "words")
    with load(application.url) as running:
        with_adapters(a=one, bad=cut_off)
        wait_until(lambda: not answer(application, "words-a").isdigit(), "the adapter is loaded")
        wait_until(lambda: "corrupt" in why(application, "words-bad"), "the other is rejected")
        first, rejected = answer(application, "words-a"), answer(application, "words-bad")
        with_adapters(a=two)
        wait_until(
            lambda: not (now := answer(application, "words-a")).isdigit() and now != first,
            "the weights are replaced",
        )
        later = " ".join(answer(application, "words-a") for _ in range(5))
        deploy(application, tmp_path, lambda data: None)
        wait_until(lambda: answer(application, "words-a") == "404", "the adapter is gone")

    assert (set(first.split()), set(later.split())) == ({MARKS[0]}, {MARKS[1]})
    assert not {*MARKS} & {*plain.split()}
    assert rejected == "503"
    assert answer(application, "words") == plain
    assert processes(ENGINES) == before
    assert set(running.statuses) == {200}
