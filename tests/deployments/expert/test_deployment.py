"""One replica in front of its engine's app: which model a request names, and the report of its adapters."""

import asyncio
import math
from pathlib import Path
from typing import Any

import orjson
import pytest

from deployments.contracts.messages import HEARTBEATS, Head, Headers
from deployments.contracts.variants import ADAPTER, ADAPTERS_PATH
from deployments.expert.adapter_preparation import AdapterFolders
from deployments.expert.adapters import Adapters
from deployments.expert.deployment import EngineDiedError, Expert
from tests.deployments.expert.adapter_files import adapter_folder, model_folder

CHAT = "/v1/chat/completions"
BODY = b'{"model":"qwen-sql","top_k":3}'


class Engine:
    """Has every adapter, and an app that sends back what it got."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.has: list[str] = []
        self.status, self.dies_after = 200, math.inf
        """Its app's status, and the requests after which it is dead."""
        self.requests = 0
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load(self, name: str, folder: Path) -> None:
        await self.may_load.wait()
        self.has.append(name)

    async def unload(self, name: str) -> None:
        self.has.remove(name)

    async def check_health(self) -> None:
        if self.requests >= self.dies_after:
            raise ValueError("dead")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = scope["headers"]
        self.requests += 1
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Counter:
    """Of an engine that takes no steps."""

    steps, load = 0, None


def replica(engine: Engine, folder: Path) -> Expert:
    made = Expert.__new__(Expert)
    model = str(model_folder(folder / "base"))
    prepare = AdapterFolders(model, max_rank=4, copies=folder / "copies").prepare
    made._name, made._engine, made._app, made._counter = "qwen", engine, engine.app, Counter()
    made._adapters = Adapters(engine, prepare)
    made._updates, made._serves, made._adapters_within_s = [], False, 60.0
    return made


async def response(expert: Expert, headers: Headers, path: str = CHAT) -> tuple[int, Any]:
    parts = [
        part async for part in expert.http("GET" if path == ADAPTERS_PATH else "POST", path, headers, BODY)
    ]
    head = next(part for part in parts if isinstance(part, Head))
    return head.status, orjson.loads(head.body)


async def test_an_adapter_is_requested_by_its_loaded_name(tmp_path: Path) -> None:
    engine = Engine()
    expert = replica(engine, tmp_path)
    await expert.reconfigure({"adapters": {"sql": str(adapter_folder(tmp_path / "a"))}})
    status, body = await response(expert, (HEARTBEATS, (ADAPTER, b"sql")))

    assert (status, body) == (200, {"model": engine.has[0], "top_k": 3})
    assert engine.has[0].startswith("sql@")
    assert {name for name, _ in engine.headers}.isdisjoint({ADAPTER, HEARTBEATS[0]})


async def test_a_variant_without_an_adapter_requests_the_model_itself(tmp_path: Path) -> None:
    assert (await response(replica(Engine(), tmp_path), ((ADAPTER, b""),)))[1]["model"] == "qwen"


async def test_a_request_without_the_header_keeps_its_model(tmp_path: Path) -> None:
    assert (await response(replica(Engine(), tmp_path), ()))[1] == orjson.loads(BODY)


async def test_an_adapter_that_is_not_loaded_is_an_error_of_the_expert(tmp_path: Path) -> None:
    expert = replica(Engine(), tmp_path)
    await expert.reconfigure({"adapters": {"sql": str(adapter_folder(tmp_path / "a", rank=8))}})
    status, body = await response(expert, ((ADAPTER, b"sql"),))
    report = await response(expert, (), ADAPTERS_PATH)

    assert status == 500
    assert body["error"]["message"] == "adapter 'sql' is not loaded: its rank 8 is above max_lora_rank 4"
    assert report[1]["replica"] == expert._adapters.replica
    assert report[1]["adapters"] == {"sql": "its rank 8 is above max_lora_rank 4"}


async def test_a_replica_that_serves_loads_adapters_beside_its_requests(tmp_path: Path) -> None:
    engine = Engine()
    expert = replica(engine, tmp_path)
    await response(expert, ())
    await expert.reconfigure({"adapters": {"sql": str(adapter_folder(tmp_path / "a"))}})
    at_once = (await response(expert, (), ADAPTERS_PATH))[1]["adapters"]
    await asyncio.gather(*expert._updates)

    assert at_once in ({}, {"sql": "it is being loaded"})
    assert (await response(expert, (), ADAPTERS_PATH))[1]["adapters"] == {"sql": None}


async def test_a_replica_that_starts_waits_for_adapters_only_so_long(tmp_path: Path) -> None:
    engine = Engine()
    engine.may_load.clear()
    expert = replica(engine, tmp_path)
    expert._adapters_within_s = 0.0
    await expert.reconfigure({"adapters": {"sql": str(adapter_folder(tmp_path / "a"))}})
    without = (await response(expert, ((ADAPTER, b""),)))[0]
    engine.may_load.set()
    await asyncio.gather(*expert._updates)

    assert without == 200
    assert (await response(expert, ((ADAPTER, b"sql"),)))[0] == 200


async def test_an_invalid_configuration_leaves_the_adapters_as_they_are(tmp_path: Path) -> None:
    engine = Engine()
    expert = replica(engine, tmp_path)
    await expert.reconfigure({"adapters": {"sql": str(adapter_folder(tmp_path / "a"))}})
    await expert.reconfigure({"adapter": {}})

    assert (await response(expert, ((ADAPTER, b"sql"),)))[0] == 200
    assert len(engine.has) == 1


@pytest.mark.parametrize("requests", [0, 1])
async def test_a_dead_engine_is_an_absence_not_a_response(requests: int, tmp_path: Path) -> None:
    engine = Engine()
    engine.status, engine.dies_after = 500, requests

    with pytest.raises(EngineDiedError):
        await response(replica(engine, tmp_path), ())


async def test_an_error_of_an_engine_that_lives_is_its_response(tmp_path: Path) -> None:
    engine = Engine()
    engine.status = 500

    assert (await response(replica(engine, tmp_path), ()))[0] == 500
