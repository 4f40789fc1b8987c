"""Who sees the page and its data, and what leaves with it; no browser needed."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.contracts.messages import RouterState
from deployments.dashboard.routes import DOCUMENTS, is_loopback, static_files
from deployments.dashboard.snapshot import MetricsSnapshots
from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from tests.deployments.dashboard.graph import NAMES, Graph, policy_view
from tests.deployments.fakes import Clock

DATA = ("/page/data/ask", "/page/data/board", "/page/data/policy")
FILES = ("/page/page.css", "/page/common.js", "/page/icon.svg")


def client(graph: Graph, base: str = "http://127.0.0.1:8000") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=graph.api.app), base_url=base)


@pytest.fixture
async def opened() -> AsyncIterator[tuple[Graph, httpx.AsyncClient]]:
    graph = Graph()
    async with client(graph) as http:
        yield graph, http


async def test_every_path_of_the_page_answers_on_loopback(opened: tuple[Graph, httpx.AsyncClient]) -> None:
    _, http = opened

    for path in (*DOCUMENTS, *FILES, *DATA):
        assert (await http.get(path)).status_code == 200, path


@pytest.mark.parametrize("host", ["router.example.com", "10.0.0.7:8000", "127.0.0.1.example.com", ""])
async def test_by_default_no_other_name_is_shown_the_page(host: str) -> None:
    async with client(Graph()) as http:
        for path in (*DOCUMENTS, *FILES, *DATA):
            answer = await http.get(path, headers={"host": host})

            assert answer.status_code == 404
            assert "args.ingress.page" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "a.localhost:8000", "127.8.9.1", "[::1]:8000"])
def test_loopback_has_these_names(host: str) -> None:
    assert is_loopback(host)


async def test_true_shows_it_to_all_and_false_to_nobody() -> None:
    async with client(Graph(page=True), "http://router.example.com") as http:
        assert (await http.get("/board")).status_code == 200
    async with client(Graph(page=False)) as http:
        for path in (*DOCUMENTS, *FILES, *DATA):
            assert (await http.get(path)).status_code == 404


async def test_nothing_but_its_own_files_is_served(opened: tuple[Graph, httpx.AsyncClient]) -> None:
    _, http = opened

    for path in (
        "/page/",
        "/page/door.py",
        "/page/..%2fdoor.py",
        "/page/%2e%2e/config.py",
        "/page/data/keys",
    ):
        answer = await http.get(path)

        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_with_keys_on_documents_are_bare_and_data_needs_a_key(
    opened: tuple[Graph, httpx.AsyncClient], tmp_path: Path
) -> None:
    graph, http = opened
    whole, record = new_key("a person")
    part, restricted = new_key("a part", experts=["words"])
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record, restricted]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    graph.ask_for_keys(ring)

    for path in DOCUMENTS:
        document = await http.get(path)
        assert document.status_code == 200
        assert not any(name in document.text for name in NAMES)
    for path in DATA:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers={"authorization": "Bearer tor-wrong"})).status_code == 401
        assert (await http.get(path, headers={"authorization": f"Bearer {whole}"})).status_code == 200
    told = await http.get("/page/data/ask", headers={"authorization": f"Bearer {part}"})
    assert list(told.json()["prices"]) == ["words"]
    for path in DATA[1:]:
        refused = await http.get(path, headers={"authorization": f"Bearer {part}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "page_not_allowed")


async def test_every_answer_of_the_page_forbids_what_is_not_its_own(
    opened: tuple[Graph, httpx.AsyncClient],
) -> None:
    _, http = opened

    for path in (*DOCUMENTS, *FILES, *DATA):
        policy = (await http.get(path)).headers["content-security-policy"]

        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy


def test_no_file_of_the_page_names_another_place_or_parses_html() -> None:
    for name, file in static_files().items():
        text = file.body.decode()

        strangers = [
            part for part in text.split() if "://" in part and "http://www.w3.org/2000/svg" not in part
        ]
        assert not strangers, name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="):
            assert word not in text, name


async def test_a_file_that_did_not_change_is_not_sent_again(opened: tuple[Graph, httpx.AsyncClient]) -> None:
    _, http = opened
    first = await http.get("/page/ask.js")

    again = await http.get("/page/ask.js", headers={"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["content-encoding"] == "gzip"
    plain = await http.get("/page/ask.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == first.content


async def test_many_boards_gather_once_a_second() -> None:
    clock, gathered = Clock(), []

    async def gather() -> bytes:
        gathered.append(clock())
        return b'to_router_requests_total{kind="chat",outcome="200",replica="a"} 3.0\n'

    board = MetricsSnapshots(Graph().api.registry, gather, clock, now=lambda: 12.0)

    first = await board.snapshot()
    assert await board.snapshot() is first
    clock.now += 1.0
    await board.snapshot()

    assert len(gathered) == 2
    assert gzip.decompress(first.zipped) == first.plain
    assert json.loads(first.plain)["at"] == 12.0


async def test_what_is_counted_by_key_does_not_leave() -> None:
    async def gather() -> bytes:
        return (
            b'to_router_key_cost_usd_total{key="a"} 3.0\nprocess_open_fds 3\n'
            b'to_router_stage_seconds_sum{stage="parse"} 1\nto_router_stage_seconds_sum{stage="whole"} 1\n'
        )

    board = MetricsSnapshots(Graph().api.registry, gather)

    told = json.loads((await board.snapshot()).plain)

    assert told["metrics"] == 'to_router_stage_seconds_sum{stage="whole"} 1'
    assert set(told["experts"]) == set(NAMES)
    assert told["experts"]["words"]["running"] == 1


class Folder:
    """A policy folder with its evaluation, as far as the page reads them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import hashlib

        monkeypatch.setenv("TO_ROUTER_ROOT", str(root))
        (root / "policy").mkdir()
        (root / "policy-report").mkdir()
        raw = json.dumps({"format": "to-router-policy", "seed": 7}).encode()
        (root / "policy" / "manifest.json").write_bytes(raw)
        (root / "policy" / "CARD.md").write_text("# a card", encoding="utf-8")
        self.policy_id = hashlib.sha256(raw).hexdigest()[:12]
        self.report_file = root / "policy-report" / "report.json"
        self.report(policy_id=self.policy_id, n_queries=5)

    def report(self, **fields: Any) -> None:
        self.report_file.write_text(json.dumps(fields), encoding="utf-8")


async def test_the_card_tells_of_the_policy_in_force_and_of_no_other(
    opened: tuple[Graph, httpx.AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, http = opened
    folder = Folder(tmp_path, monkeypatch)

    graph.api.registry.update_router(RouterState(policy_view(folder.policy_id, "policy"), None))
    told = (await http.get("/page/data/policy")).json()
    assert told["manifest"]["seed"] == 7
    assert told["card"] == "# a card"
    assert told["report"]["n_queries"] == 5
    assert told["preferences"]["cost_weight"] == 0.3
    assert told["why"] == []

    folder.report(policy_id="ffffffffffff")
    told = (await http.get("/page/data/policy")).json()
    assert told["report"] is None
    assert "is of another policy" in told["why"][0]

    graph.api.registry.update_router(RouterState(policy_view("ffffffffffff", "policy"), None))
    told = (await http.get("/page/data/policy")).json()
    assert (told["manifest"], told["card"]) == (None, None)
    assert "holds another policy than the one in effect" in told["why"][0]


async def test_a_policy_whose_folder_is_not_here_is_told_without_it(
    opened: tuple[Graph, httpx.AsyncClient],
) -> None:
    _, http = opened

    told = (await http.get("/page/data/policy")).json()

    assert told["policy_id"] == "0123456789ab"
    assert told["manifest"] is None
    assert any("cannot be read here" in line for line in told["why"])
    assert any("to-router evaluate --policy" in line for line in told["why"])


async def test_report_with_nan_is_sent_as_null(
    opened: tuple[Graph, httpx.AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, http = opened
    folder = Folder(tmp_path, monkeypatch)
    folder.report(policy_id=folder.policy_id, aiq=float("nan"))
    graph.api.registry.update_router(RouterState(policy_view(folder.policy_id, "policy"), None))

    response = await http.get("/page/data/policy")

    assert response.headers["content-type"] == "application/json"
    assert response.json()["report"]["aiq"] is None
