"""Pictures of the page for docs/page.md, from the real application with the pocket experts.

    python -m tests.deployments.dashboard.pictures [--out docs/images] [--stand-ins]

Starts the default graph, sends a small load and photographs the three parts at 1280 and 390 pixels, in the
light and in the dark.
With `--stand-ins` neither Ray nor an engine runs: scripted experts and scores behind the real ingress.
"""

import argparse
import hashlib
import io
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

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
COLOURS = 128
RARE_TOO = Image.Quantize.FASTOCTREE
"""Keeps the colours of thin lines, which the default merges."""
SIZES = {"1280": browser.WIDE, "390": browser.NARROW}


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
    httpx.get(f"{url}/page/data/board").raise_for_status()  # the history begins before the load
    load = threading.Thread(target=_load, args=(url, queries), daemon=True)
    load.start()
    with browser.chromium() as chromium, chromium.new_context(reduced_motion="reduce") as context:
        board = context.new_page()
        board.goto(f"{url}/board")
        for width, size in SIZES.items():
            tab = context.new_page()
            tab.set_viewport_size(size)
            tab.set_default_timeout(60_000)
            _ask(tab, url)
            _take(tab, out / f"page-ask-{width}")
            tab.goto(f"{url}/policy")
            tab.wait_for_selector("#curve svg circle")
            _take(tab, out / f"page-policy-{width}")
        load.join()
        for width, size in SIZES.items():
            board.set_viewport_size(size)
            board.wait_for_selector("#chart-rate svg path")
            _take(board, out / f"page-board-{width}")


def _take(tab: Any, name: Path) -> None:
    """Two pictures, light and dark, with few colours: they are small, and text stays sharp."""
    for scheme, suffix in (("light", ""), ("dark", "-dark")):
        tab.emulate_media(color_scheme=scheme)
        raw = tab.screenshot(full_page=True)
        file = name.with_name(f"{name.name}{suffix}.png")
        Image.open(io.BytesIO(raw)).convert("RGB").quantize(COLOURS, RARE_TOO, dither=Image.Dither.NONE).save(
            file, optimize=True
        )


def _ask(tab: Any, url: str) -> None:
    """An example is sent by its button, and the decision of another one is previewed."""
    tab.goto(url)
    tab.wait_for_selector("#examples button")
    second = tab.locator("#examples button span").nth(1).inner_text()
    tab.locator("#examples button").first.click()
    tab.wait_for_selector(".turn .said[aria-busy=false]")
    tab.fill("#query", second)
    tab.wait_for_selector("#live-experts li.chosen")
    tab.locator("#cost").fill("60")
    tab.wait_for_selector("#live:has-text('cost_weight 0.501')")


if __name__ == "__main__":
    sys.exit(main())
