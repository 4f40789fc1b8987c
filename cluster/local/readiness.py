"""Wait until a graph is ready, over HTTP; knows no process and no cluster."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

READY_WITHIN_S = 600.0
POLL_S = 1.0
REQUEST_TIMEOUT_S = 10.0


def readiness(url: str) -> dict[str, str] | None:
    """Return the reason of each part that is not ready: empty if all are, `None` without a response."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=REQUEST_TIMEOUT_S) as response:  # noqa: S310 - our own address
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except (OSError, urllib.error.URLError):
        return None
    try:
        parts = json.loads(body)["parts"]
    except (ValueError, KeyError, TypeError):
        return None
    return {name: part["why"] or "not ready" for name, part in parts.items() if not part["ready"]}


def wait_until_ready(
    url: str,
    alive: Callable[[], bool],
    report: Callable[[str], None],
    *,
    within_s: float = READY_WITHIN_S,
) -> bool:
    """Wait for `/ready` and report each change.

    Args:
        url: base URL of the ingress.
        alive: false once waiting is pointless, for example because the process ended.
        report: receives one line for each change.
        within_s: the longest wait.

    Returns:
        False if `alive` turned false or the time ran out.
    """
    started = time.monotonic()
    last = ""
    while alive() and time.monotonic() - started < within_s:
        waiting = readiness(url)
        if waiting == {}:
            return True
        state = "starting Ray and Serve" if waiting is None else "waiting for " + ", ".join(sorted(waiting))
        if state != last:
            report(f"[{time.monotonic() - started:4.0f} s] {state}")
            last = state
        time.sleep(POLL_S)
    return False
