"""Access to the page and its data, and the headers of its responses; no browser needed."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deployments.dashboard.routes import DOCUMENTS, VENDOR, is_loopback, static_files
from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from tests.deployments.dashboard.graph import NAMES, Graph

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
    async with client(Graph(allow_anonymous=True)) as http:
        for path in (*DOCUMENTS, *FILES, *DATA):
            answer = await http.get(path, headers={"host": host})

            assert answer.status_code == 404
            assert "args.ingress.page" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "a.localhost:8000", "127.8.9.1", "[::1]:8000"])
def test_loopback_has_these_names(host: str) -> None:
    assert is_loopback(host)


async def test_true_shows_it_to_all_and_false_to_none() -> None:
    async with client(Graph(page=True, allow_anonymous=True), "http://router.example.com") as http:
        assert (await http.get("/board")).status_code == 200
    async with client(Graph(page=False)) as http:
        for path in (*DOCUMENTS, *FILES, *DATA):
            assert (await http.get(path)).status_code == 404


async def test_nothing_but_its_own_files_is_served(opened: tuple[Graph, httpx.AsyncClient]) -> None:
    _, http = opened

    for path in (
        "/page/",
        "/page/routes.py",
        "/page/..%2froutes.py",
        "/page/%2e%2e/config.py",
        "/page/data/keys",
    ):
        answer = await http.get(path)

        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_with_keys_on_documents_are_empty_and_data_needs_a_key(
    opened: tuple[Graph, httpx.AsyncClient], tmp_path: Path
) -> None:
    graph, http = opened
    whole, record = new_key("a person")
    part, restricted = new_key("a part", experts=["words"])
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record, restricted]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    graph.require_keys(ring)

    for path in DOCUMENTS:
        document = await http.get(path)
        assert document.status_code == 200
        assert not any(name in document.text for name in NAMES)
    for path in DATA:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers={"authorization": "Bearer tor-wrong"})).status_code == 401
        assert (await http.get(path, headers={"authorization": f"Bearer {whole}"})).status_code == 200
    facts = await http.get("/page/data/ask", headers={"authorization": f"Bearer {part}"})
    assert list(facts.json()["prices"]) == ["words"]
    for path in DATA[1:]:
        rejected = await http.get(path, headers={"authorization": f"Bearer {part}"})
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (403, "page_not_allowed")


async def test_every_answer_of_the_page_forbids_what_is_not_its_own(
    opened: tuple[Graph, httpx.AsyncClient],
) -> None:
    _, http = opened

    for path in (*DOCUMENTS, *FILES, *DATA):
        policy = (await http.get(path)).headers["content-security-policy"]

        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'; trusted-types dompurify" in policy


def test_no_file_of_the_page_names_another_origin_or_parses_html() -> None:
    for name, file in static_files().items():
        if name.startswith("vendor/"):  # the sanitiser parses in a document of its own; its hash is checked
            continue
        text = file.body.decode()

        strangers = [
            part for part in text.split() if "://" in part and "http://www.w3.org/2000/svg" not in part
        ]
        assert not strangers, name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="):
            assert word not in text, name


def test_vendored_libraries_are_the_published_ones() -> None:
    rows = [line.split("|") for line in (VENDOR / "README.md").read_text(encoding="utf-8").splitlines()]
    hashes = {row[1].strip(" `"): row[4].strip(" `") for row in rows if len(row) > 4 and ".js" in row[1]}
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}

    assert hashes == files
    assert {"LICENSE-markdown-it", "LICENSE-dompurify"} <= {path.name for path in VENDOR.iterdir()}
    assert all(f"vendor/{name}" in static_files() for name in hashes)


async def test_the_bare_route_prefix_leads_to_the_page() -> None:
    transport = httpx.ASGITransport(app=Graph().api.app, root_path="/teams/models")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        bare = await http.get("/teams/models")
        led = await http.get("/teams/models", follow_redirects=True)

    assert (bare.status_code, bare.headers["location"]) == (307, "models/")
    assert (led.status_code, led.url.path) == (200, "/teams/models/")


async def test_a_file_that_did_not_change_is_not_sent_again(opened: tuple[Graph, httpx.AsyncClient]) -> None:
    _, http = opened
    first = await http.get("/page/ask.js")

    again = await http.get("/page/ask.js", headers={"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["content-encoding"] == "gzip"
    plain = await http.get("/page/ask.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == first.content
