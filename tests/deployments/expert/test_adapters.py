"""Adapters in place: loaded under names of their content, replaced without a wrong answer, drained."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.expert.adapter_folder import AdapterRejectedError
from deployments.expert.adapter_preparation import AdapterFolders, Prepared
from deployments.expert.adapters import AdapterNotLoadedError, Adapters
from tests.deployments.expert.adapter_files import adapter_folder, model_folder


class FakeEngine:
    """Remembers what it has; rejects what is in `rejects`, fails on `fails`, and cannot unload `keeps`."""

    def __init__(self) -> None:
        self.has: dict[str, Path] = {}
        self.log: list[str] = []
        self.attempts, self.unloads = 0, 0
        self.rejects: set[str] = set()
        self.fails: set[str] = set()
        self.keeps: set[str] = set()
        self.begun, self.may_load = asyncio.Event(), asyncio.Event()
        self.may_load.set()

    async def load(self, name: str, folder: Path) -> None:
        self.attempts += 1
        self.begun.set()
        await self.may_load.wait()
        public = name.partition("@")[0]
        if public in self.rejects:
            raise AdapterRejectedError("no")
        if public in self.fails:
            raise RuntimeError("no")
        assert name not in self.has
        assert (folder / "adapter_model.safetensors").is_file()
        self.has[name] = folder
        self.log.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.unloads += 1
        if name.partition("@")[0] in self.keeps:
            raise RuntimeError("no")
        del self.has[name]
        self.log.append(f"unload {name}")


class Field:
    """An engine, its adapters and their folders."""

    def __init__(
        self,
        folder: Path,
        *,
        most: int | None = None,
        drain_s: float = 60.0,
        retry_after_s: Sequence[float] = (),
        load_s: float = 60.0,
    ) -> None:
        self.folder = folder
        self.copies = folder / "copies"
        self.engine = FakeEngine()
        model = str(model_folder(folder / "base"))
        self.folders = AdapterFolders(model, max_rank=4, copies=self.copies)
        self.adapters = Adapters(
            self.engine,
            self.folders.prepare,
            most=most,
            drain_s=drain_s,
            retry_after_s=retry_after_s,
            load_s=load_s,
        )

    def make(self, name: str, value: float = 0.0, rank: int = 4) -> str:
        return str(adapter_folder(self.folder / name, value=value, rank=rank))

    def copied(self) -> set[Path]:
        """The copies that are left."""
        return set(self.copies.glob("replica-*/adapter-*"))

    def loaded_as(self, name: str) -> str:
        with self.adapters.use(name) as internal:
            return internal


async def retired() -> None:
    """Wait until what was replaced is unloaded, and its copy deleted."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


async def all_ended() -> None:
    """The same, where a task fails or is cancelled."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(tasks)


async def test_an_adapter_is_loaded_under_a_name_of_its_content(tmp_path: Path) -> None:
    field = Field(tmp_path)
    await field.adapters.update({"sql": field.make("a"), "twin": field.make("b"), "new": field.make("c", 1)})
    names = [field.loaded_as(name) for name in ("sql", "twin", "new")]
    digests = [name.partition("@")[2] for name in names]

    assert [name.partition("@")[0] for name in names] == ["sql", "twin", "new"]
    assert digests[0] == digests[1] != digests[2]
    assert set(names) == set(field.engine.has)


async def test_replaced_adapters_with_open_requests_keep_their_slots(tmp_path: Path) -> None:
    field = Field(tmp_path, most=2)
    await field.adapters.update({"sql": field.make("a")})
    with field.adapters.use("sql"):
        await field.adapters.update({"sql": field.make("b", 1)})
        await field.adapters.update({"sql": field.make("c", 2)})
        full = field.adapters.report()["rejected"].get("sql")
    await retired()
    await field.adapters.update({"sql": field.make("c", 2)})

    assert full is not None
    assert full.startswith("the engine holds 2 adapters")
    assert field.adapters.report()["rejected"] == {}
    assert len(field.engine.has) <= 2


@pytest.mark.parametrize("rejected", [False, True])
async def test_a_request_waits_for_an_adapter_that_is_being_loaded(tmp_path: Path, rejected: bool) -> None:
    field = Field(tmp_path)
    field.engine.may_load.clear()
    field.engine.rejects = {"sql"} if rejected else set()
    update = asyncio.create_task(field.adapters.update({"sql": field.make("a")}))
    await field.engine.begun.wait()
    waiting = asyncio.create_task(field.adapters.settled("sql"))
    await asyncio.sleep(0)
    early = waiting.done()
    field.engine.may_load.set()
    await asyncio.gather(update, waiting)

    assert not early
    assert (field.adapters.report()["adapters"]["sql"] is None) is not rejected


async def test_what_did_not_change_is_not_loaded_again(tmp_path: Path) -> None:
    field = Field(tmp_path)
    for _ in range(2):
        await field.adapters.update({"sql": field.make("a")})

    assert len(field.engine.log) == 1
    assert len(field.copied()) == 1


async def test_the_old_weights_stay_until_their_last_request_ends(tmp_path: Path) -> None:
    field = Field(tmp_path)
    folder = field.make("a")
    await field.adapters.update({"sql": folder})
    with field.adapters.use("sql") as old:
        field.make("a", value=1.0)  # in the same folder
        await field.adapters.update({"sql": folder})
        new = field.loaded_as("sql")
        await asyncio.sleep(0)
        during = set(field.engine.has)
    await retired()

    assert old != new
    assert during == {old, new}
    assert set(field.engine.has) == {new}
    assert field.copied() == set(field.engine.has.values())


async def test_the_copy_is_loaded_not_the_folder_that_may_change(tmp_path: Path) -> None:
    field = Field(tmp_path)
    await field.adapters.update({"sql": field.make("a")})
    (copy,) = field.engine.has.values()
    before = (copy / "adapter_model.safetensors").read_bytes()
    field.make("a", value=1.0)

    assert field.copied() == {copy}
    assert (copy / "adapter_model.safetensors").read_bytes() == before


async def test_an_adapter_that_is_removed_is_unloaded(tmp_path: Path) -> None:
    field = Field(tmp_path)
    await field.adapters.update({"sql": field.make("a")})
    await field.adapters.update({})
    await retired()

    assert field.engine.has == {}
    assert field.copied() == set()
    with pytest.raises(AdapterNotLoadedError, match="the application has no such adapter"):
        field.loaded_as("sql")


async def test_an_adapter_stays_in_the_engine_while_a_request_uses_it(tmp_path: Path) -> None:
    field = Field(tmp_path, drain_s=0.0)
    await field.adapters.update({"sql": field.make("a")})
    with field.adapters.use("sql") as name:
        await field.adapters.update({})
        for _ in range(20):
            await asyncio.sleep(0)

        assert set(field.engine.has) == {name}
    await retired()
    assert field.engine.has == {}


async def test_an_adapter_that_cannot_be_unloaded_keeps_its_slot(tmp_path: Path) -> None:
    field = Field(tmp_path, most=2)
    field.engine.keeps = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    await field.adapters.update({})
    await retired()
    await field.adapters.update({"b": field.make("b"), "c": field.make("c", value=1.0)})
    report = field.adapters.report()["adapters"]

    assert report["b"] is None
    assert "the engine holds 2 adapters" in str(report["c"])


async def test_weights_that_come_back_before_they_are_unloaded_stay(tmp_path: Path) -> None:
    field = Field(tmp_path)
    old, new = field.make("a"), field.make("b", value=1.0)
    await field.adapters.update({"sql": old})
    with field.adapters.use("sql") as first:
        await field.adapters.update({"sql": new})
        await field.adapters.update({"sql": old})
        again = field.loaded_as("sql")
    await retired()

    assert again == first
    assert set(field.engine.has) == {first}
    assert sum(line.startswith("load") for line in field.engine.log) == 2


async def test_a_rejected_adapter_is_reported_and_the_others_serve(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.engine.rejects = {"broken"}
    await field.adapters.update(
        {
            "high": field.make("high", rank=8),
            "broken": field.make("broken"),
            "missing": str(tmp_path / "nowhere"),
            "sql": field.make("a"),
        }
    )
    report = field.adapters.report()["adapters"]

    assert report["sql"] is None
    assert report["high"] == "its rank 8 is above max_lora_rank 4"
    assert report["broken"] == "no"
    assert "nowhere is no folder" in str(report["missing"])
    assert len(field.copied()) == 1
    with pytest.raises(AdapterNotLoadedError, match="'high' is not loaded: its rank 8"):
        field.loaded_as("high")


async def test_a_rejected_adapter_is_tried_again_later(tmp_path: Path) -> None:
    field = Field(tmp_path, retry_after_s=(0.0,))
    field.engine.fails = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    rejected = field.adapters.report()["adapters"]
    field.engine.fails = set()
    await retired()

    assert rejected == {"sql": "the engine failed (RuntimeError)"}
    assert field.adapters.report() == {"adapters": {"sql": None}, "rejected": {}}


async def test_a_rejected_adapter_is_tried_a_bounded_number_of_times(tmp_path: Path) -> None:
    field = Field(tmp_path, retry_after_s=(0.0, 0.0, 0.0))
    field.engine.fails = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    await retired()

    assert field.engine.attempts == 4
    assert field.copied() == set()


async def test_a_newer_configuration_ends_the_trials_of_the_last_one(tmp_path: Path) -> None:
    field = Field(tmp_path, retry_after_s=(3600.0,))
    field.engine.fails = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    await field.adapters.update({})
    await retired()

    assert field.engine.attempts == 1
    assert field.adapters.report() == {"adapters": {}, "rejected": {}}


async def test_a_reason_shows_no_folder_of_the_machine(tmp_path: Path) -> None:
    field = Field(tmp_path)
    missing = tmp_path / "made" / "sql"
    await field.adapters.update({"sql": str(missing)})
    error = AdapterRejectedError(f"vLLM rejected it:\n  LoRA rank 64 in '{missing}' is above 16")

    assert field.adapters.report()["adapters"] == {"sql": "sql is no folder"}
    assert error.shown == "vLLM rejected it: LoRA rank 64 in 'sql' is above 16"


async def test_an_engine_that_fails_on_one_adapter_gets_the_others(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.engine.fails = {"sql"}
    await field.adapters.update({"sql": field.make("a"), "support": field.make("b", value=1.0)})

    assert field.adapters.report()["adapters"] == {
        "support": None,
        "sql": "the engine failed (RuntimeError)",
    }


async def test_a_rejected_change_leaves_the_adapter_before_it(tmp_path: Path) -> None:
    field = Field(tmp_path)
    await field.adapters.update({"sql": field.make("a")})
    before = field.loaded_as("sql")
    await field.adapters.update({"sql": field.make("b", rank=8)})
    report = field.adapters.report()

    assert field.loaded_as("sql") == before
    assert report["adapters"] == {"sql": None}
    assert report["rejected"] == {"sql": "its rank 8 is above max_lora_rank 4"}


async def test_an_engine_without_lora_rejects_every_adapter(tmp_path: Path) -> None:
    adapters = Adapters(None, lambda folder: Prepared(tmp_path, "0"))
    await adapters.update({"sql": "anywhere"})

    assert "started without LoRA" in str(adapters.report()["adapters"]["sql"])


async def test_a_newer_configuration_waits_for_no_further_adapter_of_the_last_one(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.engine.may_load.clear()
    older = asyncio.create_task(field.adapters.update({"a": field.make("a"), "b": field.make("b")}))
    await field.engine.begun.wait()
    newer = asyncio.create_task(field.adapters.update({"c": field.make("c", 1)}))
    await asyncio.sleep(0)
    field.engine.may_load.set()
    await asyncio.gather(older, newer)
    await retired()

    assert [line.partition("@")[0] for line in field.engine.log] == ["load a", "load c", "unload a"]


async def test_no_request_waits_forever_for_an_adapter_of_the_last_configuration(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.engine.may_load.clear()
    folders = {name: field.make(name, value) for value, name in enumerate("abc")}
    older = asyncio.create_task(field.adapters.update(folders))
    await field.engine.begun.wait()
    gone, kept = (asyncio.create_task(field.adapters.settled(name)) for name in "bc")
    newer = asyncio.create_task(field.adapters.update({"c": folders["c"]}))
    await asyncio.sleep(0)
    field.engine.may_load.set()
    await asyncio.gather(gone, kept)
    loaded = field.adapters.report()["adapters"]
    await asyncio.gather(older, newer)

    assert loaded == {"c": None}


async def test_a_configuration_that_is_cancelled_lets_its_requests_go_on(tmp_path: Path) -> None:
    field = Field(tmp_path)
    field.engine.may_load.clear()
    update = asyncio.create_task(field.adapters.update({"a": field.make("a")}))
    await field.engine.begun.wait()
    waiting = asyncio.create_task(field.adapters.settled("a"))
    await asyncio.sleep(0)
    update.cancel()
    await waiting
    field.engine.may_load.set()
    await all_ended()

    assert (field.engine.has, field.copied()) == ({}, set())


async def test_a_newer_configuration_ends_a_trial_between_adapters(tmp_path: Path) -> None:
    field = Field(tmp_path, retry_after_s=(0.0,))
    field.engine.fails = {"a", "b"}
    await field.adapters.update({"a": field.make("a"), "b": field.make("b")})
    field.engine.begun.clear()
    field.engine.may_load.clear()
    await field.engine.begun.wait()
    newer = asyncio.create_task(field.adapters.update({}))
    await asyncio.sleep(0)
    field.engine.may_load.set()
    await newer
    await retired()

    assert field.engine.attempts == 3


async def test_a_load_that_ends_late_is_unloaded_and_its_copy_stays_until_then(tmp_path: Path) -> None:
    field = Field(tmp_path, most=1, load_s=0.02)
    field.engine.may_load.clear()
    folder = field.make("a")
    await field.adapters.update({"sql": folder})
    late = field.adapters.report()["rejected"]
    copies = field.copied()
    await field.adapters.update({"sql": folder, "other": field.make("b", 1)})
    during = field.adapters.report()["rejected"]
    field.engine.may_load.set()
    await retired()
    left = field.copied()
    await field.adapters.update({"sql": folder})

    assert late == {"sql": "the engine did not load it in 0.02 s"}
    assert len(copies) == 1
    assert during["sql"] == "the engine did not load it in 0.02 s, and loads it still"
    assert during["other"].startswith("the engine holds 1 adapters")
    assert left == set()
    assert field.engine.unloads == 1
    assert field.adapters.report()["adapters"] == {"sql": None}


async def test_a_load_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    field = Field(tmp_path, most=1, load_s=0.02)
    field.engine.may_load.clear()
    field.engine.fails = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    field.engine.may_load.set()
    await all_ended()
    left = field.copied()
    await field.adapters.update({"other": field.make("b")})

    assert left == set()
    assert field.adapters.report()["adapters"] == {"other": None}


async def test_an_unload_that_failed_is_tried_again(tmp_path: Path) -> None:
    field = Field(tmp_path, retry_after_s=(0.0, 0.0))
    field.engine.keeps = {"sql"}
    await field.adapters.update({"sql": field.make("a")})
    await field.adapters.update({})
    await retired()
    unloads, still = field.engine.unloads, len(field.copied())
    field.engine.keeps = set()
    await field.adapters.update({})
    await retired()

    assert (unloads, still) == (3, 1)
    assert (field.engine.has, field.copied()) == ({}, set())
