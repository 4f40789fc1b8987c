"""The ingress' deployment class, in process: which configuration is in effect, after any order of events."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.config import IngressArgs
from deployments.contracts.messages import RouterState
from deployments.ingress import configured_keys
from deployments.ingress.deployment import Ingress
from deployments.last_good import LastGood
from deployments.limits.keys import KeyFile, KeyRecord, new_key, write_keys
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.messages import SyncRequest, SyncResponse
from deployments.upstream import discovery

GOOD = {"experts": {"small": {"app": "expert-small"}}}
BAD = {"experts": {"small": {"app": "expert-small", "url": "http://x/v1"}}}


class FakeHandle:
    """The router's handle: each call returns the state of a router without a policy."""

    def options(self, **_: Any) -> "FakeHandle":
        return self

    def remote(self, *_: Any) -> "asyncio.Future[RouterState]":
        response: asyncio.Future[RouterState] = asyncio.get_running_loop().create_future()
        response.set_result(RouterState(None, None))
        return response


class NoLedger:
    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        raise ConnectionError


class Replicas:
    """Makes replicas of one deployment on one machine, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Ingress] = []

    def start(self, applications: Callable[[], Mapping[str, Any]] = dict) -> Ingress:
        made = Ingress(
            IngressArgs(),
            FakeHandle(),
            last_good=LastGood(lambda: self.folder / "state"),
            ledger_client=lambda _: LedgerClient("test", NoLedger()),
            applications=applications,
        )
        self._made.append(made)
        return made

    async def started(self, user_config: Any) -> Ingress:
        ingress = self.start()
        await ingress.reconfigure(user_config)
        return ingress

    async def stop(self) -> None:
        for ingress in self._made:
            for task in ingress._tasks:
                task.cancel()
            await ingress._keys.apply(None, None)

    def key_file(self, name: str, *records: KeyRecord) -> dict[str, str]:
        """Settings of a key file with these records."""
        write_keys(self.folder / name, KeyFile(keys=list(records)))
        return {"file": str(self.folder / name)}


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    made = Replicas(tmp_path)
    yield made
    await made.stop()


async def get(ingress: Ingress, path: str, key: str | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=ingress.__serve_build_asgi_app__())
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        return await http.get(path, headers=headers)


async def models(ingress: Ingress, key: str | None = None) -> int:
    return (await get(ingress, "/v1/models", key)).status_code


async def why_not_ready(ingress: Ingress, part: str, key: str | None = None) -> str:
    parts = (await get(ingress, "/ready", key)).json()["parts"]
    return str(parts[part]["why"]) if part in parts else ""


async def test_a_replica_with_a_bad_config_starts_from_the_last_good(replicas: Replicas) -> None:
    running = await replicas.started(GOOD)
    await running.reconfigure(BAD)
    started = await replicas.started(BAD)

    assert [await models(ingress) for ingress in (running, started)] == [200, 200]
    assert "set one of them" in await why_not_ready(started, "ingress")
    assert "the last valid configuration, saved at 20" in await why_not_ready(started, "ingress")


async def test_a_good_config_ends_the_use_of_the_saved_one(replicas: Replicas) -> None:
    await replicas.started(GOOD)
    started = await replicas.started(BAD)
    await started.reconfigure({"experts": {"large": {"app": "expert-large"}}})

    listed = (await get(started, "/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["auto", "large"]
    assert not await why_not_ready(started, "ingress")


async def test_without_any_good_config_a_replica_does_not_start(replicas: Replicas) -> None:
    with pytest.raises(ValueError, match="set one of them"):
        await replicas.started(BAD)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 2}', '{"version": 1, "user_config": {}}'])
async def test_a_damaged_saved_file_never_stops_a_good_config(replicas: Replicas, content: str) -> None:
    await replicas.started(GOOD)
    (replicas.folder / "state" / "user_config.json").write_text(content)
    with pytest.raises(ValueError, match="set one of them"):
        await replicas.started(BAD)

    assert await models(await replicas.started(GOOD)) == 200


async def test_a_folder_that_cannot_be_written_stops_nothing(replicas: Replicas) -> None:
    (replicas.folder / "state").write_text("a file where the folder should be")

    assert await models(await replicas.started(GOOD)) == 200


async def test_the_saved_file_is_readable_by_its_owner_only(replicas: Replicas) -> None:
    await replicas.started(GOOD)

    assert (replicas.folder / "state" / "user_config.json").stat().st_mode & 0o777 == 0o600


async def test_a_wrong_key_file_leaves_the_old_keys_in_effect(replicas: Replicas) -> None:
    key, record = new_key("team")
    good = {**GOOD, "keys": replicas.key_file("keys.json", record)}
    typo = {**GOOD, "keys": {"file": str(replicas.folder / "kyes.json")}}
    running = await replicas.started(good)
    await running.reconfigure(typo)
    started = await replicas.started(typo)

    for ingress in (running, started):
        assert [await models(ingress, key), await models(ingress)] == [200, 401]
        assert "kyes.json does not exist" in await why_not_ready(ingress, "ingress", key)


async def test_a_wrong_key_file_changes_no_other_setting(replicas: Replicas) -> None:
    running = await replicas.started(GOOD)
    await running.reconfigure({"experts": {"large": {"app": "a"}}, "keys": {"file": "missing.json"}})

    listed = (await get(running, "/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["auto", "small"]


async def test_keys_are_not_removed_without_the_explicit_word(replicas: Replicas) -> None:
    key, record = new_key("team")
    running = await replicas.started({**GOOD, "keys": replicas.key_file("keys.json", record)})
    await running.reconfigure(GOOD)
    started = await replicas.started(GOOD)

    for ingress in (running, started):
        assert [await models(ingress, key), await models(ingress)] == [200, 401]
        assert "allow_anonymous" in await why_not_ready(ingress, "ingress", key)
    await running.reconfigure({**GOOD, "allow_anonymous": True})
    assert await models(running) == 200
    assert await models(await replicas.started(GOOD)) == 200


async def test_an_old_saved_config_never_opens_a_closed_ingress(replicas: Replicas) -> None:
    await replicas.started(GOOD)
    _, record = new_key("team")
    keys = replicas.key_file("keys.json", record)

    with pytest.raises(ValueError, match="set one of them"):
        await replicas.started({**BAD, "keys": keys})
    closed = await replicas.started({**GOOD, "keys": {"file": "missing.json"}})
    assert await models(closed) == 503


async def test_a_key_file_that_comes_late_is_waited_for(replicas: Replicas) -> None:
    key, record = new_key("team")
    config = {**GOOD, "keys": {"file": str(replicas.folder / "keys.json")}}
    ingress = await replicas.started(config)
    before = await models(ingress, key)
    replicas.key_file("keys.json", record)
    await ingress._keys.look()

    assert (before, await models(ingress, key)) == (503, 200)
    assert not await why_not_ready(ingress, "ingress")


async def test_a_hanging_controller_delays_no_revocation(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, hang: threading.Event
) -> None:
    monkeypatch.setattr(configured_keys, "PERIOD_S", 0.01)
    monkeypatch.setattr(discovery, "PERIOD_S", 0.01)
    key, record = new_key("team")
    ingress = replicas.start(applications=lambda: {"hung": hang.wait()})
    await ingress.reconfigure({**GOOD, "keys": replicas.key_file("keys.json", record)})
    hung = [asyncio.get_running_loop().run_in_executor(None, hang.wait) for _ in range(64)]
    before = await models(ingress, key)
    replicas.key_file("keys.json")
    for _ in range(500):
        await asyncio.sleep(0.01)
        if (after := await models(ingress, key)) != 200:
            break
    hang.set()
    await asyncio.gather(*hung)

    assert (before, after) == (200, 401)
