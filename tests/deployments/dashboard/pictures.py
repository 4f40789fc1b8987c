"""Pictures of the page for docs/page.md, from the real application with the pocket experts.

    python -m tests.deployments.dashboard.pictures [--out docs/images] [--stand-ins]

Starts the default graph, sends a small load and photographs the three parts at 1280 and 390 pixels, light;
the Ask part also in the dark.
With `--stand-ins` neither Ray nor an engine runs: scripted experts and scores behind the real ingress.
"""

import argparse
import hashlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import questions
from cluster.pocket.train_policy import DEFAULT
from deployments.contracts.messages import RouterState
from tests.deployments.dashboard import browser
from tests.deployments.dashboard.graph import policy_view
from tests.deployments.dashboard.graph import serving as stand_ins

PORT = 8139
WORK = ROOT / "var" / "page"
QUERIES = [question.query for question in questions("heldout", n=120, seed=11)]
LOAD_S = 24.0
PAUSE_S = 0.15


def main() -> int:
    """Write the pictures; returns 1 when the application does not become ready."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.deployments.dashboard.pictures", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--stand-ins", action="store_true", help="scripted experts behind the real ingress")
    options = parser.parse_args()
    if (why := browser.missing()) is not None:
        sys.stderr.write(why + "\n")
        return 1
    if options.stand_ins:
        with stand_ins() as graph:
            policy_id = hashlib.sha256((DEFAULT.policy / "manifest.json").read_bytes()).hexdigest()[:12]
            view = policy_view(policy_id, str(DEFAULT.policy.relative_to(ROOT)))
            graph.api.registry.update_router(RouterState(view, None))
            _photograph(
                graph.url, ["What is 17 plus 25?", "What is 9 times 8?", "mirror the word stone"], options.out
            )
        return 0
    with serving(DEFAULT.config, port=PORT, log=WORK / "serve.log") as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, sys.stdout.write):
            sys.stderr.write(f"the application is not ready; see {WORK / 'serve.log'}\n")
            return 1
        _photograph(url, QUERIES, options.out)
    return 0


def _load(url: str, queries: list[str]) -> None:
    end, number = time.monotonic() + LOAD_S, 0
    with httpx.Client(base_url=url, timeout=60) as http:
        while time.monotonic() < end:
            message = {"role": "user", "content": queries[number % len(queries)]}
            body = {"model": "auto", "messages": [message], "stream": True}
            http.post("/v1/chat/completions", json=body).raise_for_status()
            number += 1
            time.sleep(PAUSE_S)


def _photograph(url: str, queries: list[str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with browser.chromium() as chromium:
        for width, size in (("1280", browser.WIDE), ("390", browser.NARROW)):
            load = threading.Thread(target=_load, args=(url, queries), daemon=True)
            load.start()
            with chromium.new_context(
                viewport=size, color_scheme="light", reduced_motion="reduce"
            ) as context:
                tab = context.new_page()
                tab.set_default_timeout(20_000)
                tab.goto(f"{url}/board")
                time.sleep(LOAD_S - 3)
                tab.screenshot(path=out / f"page-board-{width}.png", full_page=True)
                load.join()
                tab.goto(f"{url}/policy")
                tab.wait_for_selector("#curve svg circle")
                tab.screenshot(path=out / f"page-policy-{width}.png", full_page=True)
                _ask(tab, url, queries)
                tab.screenshot(path=out / f"page-ask-{width}.png", full_page=True)
                tab.emulate_media(color_scheme="dark")
                if width == "1280":
                    tab.screenshot(path=out / "page-ask-dark.png", full_page=True)


def _ask(tab: Any, url: str, queries: list[str]) -> None:
    tab.goto(url)
    tab.fill("#query", queries[0])
    tab.press("#query", "Enter")
    tab.wait_for_selector(".said[aria-busy=false]")
    tab.click("#fresh")
    tab.fill("#query", queries[1])
    tab.press("#query", "Enter")
    tab.wait_for_selector(".turn .said[aria-busy=false]")
    tab.fill("#query", queries[2])
    tab.locator("#cost").fill("60")
    time.sleep(1.5)


if __name__ == "__main__":
    sys.exit(main())
