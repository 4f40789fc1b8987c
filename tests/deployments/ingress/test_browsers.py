"""Without keys: no page of another site, and no public host name, reaches an expert."""

from pathlib import Path

import orjson
import pytest

from deployments.ingress.browsers import is_local
from tests.deployments.harness import CHAT, HELLO, IngressHarness
from tests.deployments.limits.test_key_limits import bearer, with_keys

EVIL = {"host": "evil.example:8000"}
OPEN_PATHS = ("/health", "/ready", "/metrics", "/v1/models")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (EVIL, "host_not_allowed"),
        ({"sec-fetch-site": "cross-site"}, "cross_site_request"),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:3000"}, "cross_site_request"),
        ({"origin": "https://evil.example"}, "cross_site_request"),
        ({"origin": "null"}, "cross_site_request"),
    ],
)
async def test_a_page_elsewhere_reaches_nothing_without_keys(headers: dict[str, str], code: str) -> None:
    harness = IngressHarness()
    response = await harness.ask({"host": "localhost:8000", **headers})
    read = [await harness.http.get(path, headers=headers) for path in OPEN_PATHS]

    assert (response.status_code, response.json()["error"]["code"]) == (403, code)
    assert {(got.status_code, got.json()["error"]["code"]) for got in read} == {(403, code)}
    assert harness.experts["small"].asked == []


async def test_curl_without_a_content_type_is_served() -> None:
    """`curl -d` says that it sends a form, and is no page."""
    harness = IngressHarness()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    response = await harness.http.post(CHAT, content=orjson.dumps(HELLO), headers=kind)

    assert response.status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_of_a_page_is_no_request(kind: str) -> None:
    harness = IngressHarness()
    for path in (CHAT, "/v1/route", "/v1/feedback"):
        response = await harness.http.post(
            path, content=orjson.dumps(HELLO), headers={"content-type": kind, "sec-fetch-site": "none"}
        )
        assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")

    assert harness.experts["small"].asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"host": "[::1]:8000", "sec-fetch-site": "none"},
        {"host": "to-router-serve-svc.models.svc.cluster.local:8000"},
        {"host": "10.0.0.7:8000", "content-type": "application/json; charset=utf-8"},
    ],
)
async def test_own_pages_and_ordinary_clients_are_served(headers: dict[str, str]) -> None:
    assert (await IngressHarness().ask(headers)).status_code == 200


async def test_a_link_to_the_page_is_a_visit() -> None:
    headers = {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    harness = IngressHarness()

    assert (await harness.http.get("/", headers=headers)).status_code == 200
    assert (await harness.ask(headers)).status_code == 403


async def test_keys_and_settings_open_what_they_name(tmp_path: Path) -> None:
    keys = IngressHarness()
    key = with_keys(keys, tmp_path)
    anonymous = IngressHarness(allow_anonymous=True)
    cors = IngressHarness(cors={"origins": ["https://chat.example"]})
    chat = {"host": "localhost", "origin": "https://chat.example", "sec-fetch-site": "cross-site"}

    assert (await keys.ask({**EVIL, **bearer(key)})).status_code == 200
    assert (await anonymous.ask(EVIL)).status_code == 200
    assert (await cors.ask(chat)).status_code == 200
    assert (await cors.ask({**chat, "origin": "https://evil.example"})).status_code == 403


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:8000", True), ("gpu-box", True), ("a.b.internal", True), ("", True), ("[::1]:80", True),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("example.com.", False),
    ],
)  # fmt: skip
def test_a_public_name_is_not_local(host: str, local: bool) -> None:
    assert is_local(host) is local
