"""The README's tour on the default graph: time to ready, memory, its queries many times, open questions.

    python -m experiments.tour [--endpoint URL] [--times 50] [--at-once 1] [--out FILE]

Without `--endpoint` it starts the default graph itself. Requests are the README's: no temperature, no
limit of tokens. Open questions of the held-out split are only routed, through `/v1/route`.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from cluster.local.readiness import wait_until_ready
from cluster.local.run import serving
from cluster.pocket.open_questions import open_questions
from cluster.pocket.train_policy import DEFAULT

PORT = 8141
TOUR = {
    "What is 27 + 15?": "42",
    "Reverse the word 'lantern'.": "nretnal",
    "What is the capital of Kenya?": "Nairobi",
    "Why is the sky blue?": "scatter",
}
"""Query → what a right answer holds."""
RESPONSE_WITHIN_S = 120.0


def main() -> int:
    """Print the figures and write them as JSON; 1 if the graph does not start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", help="a running ingress, such as http://127.0.0.1:8000")
    parser.add_argument("--times", type=int, default=50, help="how often each query of the tour is sent")
    parser.add_argument("--at-once", type=int, default=1, help="requests of one query in flight")
    parser.add_argument("--out", type=Path, default=Path("var/tour.json"))
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        url = options.endpoint
        if url is None:
            began = time.monotonic()
            url, process = stack.enter_context(
                serving(DEFAULT.config, port=PORT, log=options.out.with_suffix(".log"))
            )
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print(f"the graph did not start; see {options.out.with_suffix('.log')}", file=sys.stderr)
                return 1
            figures["ready_s"] = round(time.monotonic() - began, 1)
            figures["pss_gib"] = round(pss_bytes(process.pid) / 2**30, 2)
        http = stack.enter_context(httpx.Client(base_url=url, timeout=RESPONSE_WITHIN_S))
        figures["tour"] = {}
        for query, part in TOUR.items():
            figures["tour"][query] = _many(http, query, part, options.times, options.at_once)
            print(f"{query} {figures['tour'][query]}", file=sys.stderr, flush=True)
        figures["open"] = _routed(http)
        if "pss_gib" in figures:
            figures["pss_gib_after"] = round(pss_bytes(process.pid) / 2**30, 2)
    figures["load_average"] = os.getloadavg()[0]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    return 0


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process and all its descendants."""
    root = psutil.Process(pid)
    return sum(int(one.memory_full_info().pss) for one in (root, *root.children(recursive=True)))


def _many(http: httpx.Client, query: str, part: str, times: int, at_once: int) -> dict[str, Any]:
    body = {"model": "auto", "messages": [{"role": "user", "content": query}]}

    def ask(_: int) -> tuple[str, str, str]:
        response = http.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        text = response.json()["choices"][0]["message"]["content"]
        return text, response.headers["x-router-expert"], response.headers["x-router-cost-usd"]

    with ThreadPoolExecutor(at_once) as pool:
        responses = list(pool.map(ask, range(times)))
    answers = Counter((text, expert) for text, expert, _ in responses)
    cost = responses[-1][2]
    (answer, expert), _ = answers.most_common(1)[0]
    right = sum(count for (text, _), count in answers.items() if part in text)
    return {
        "right": right,
        "of": times,
        "answers": len(answers),
        "answer": answer,
        "expert": expert,
        "cost_usd": cost,
    }


def _routed(http: httpx.Client) -> dict[str, Any]:
    """Return, by kind, how many open questions there are and how many of them go to each expert."""
    experts: dict[str, Counter[str]] = defaultdict(Counter)
    elsewhere = []
    for question in open_questions("heldout"):
        body = {"model": "auto", "messages": [{"role": "user", "content": question.query}]}
        response = http.post("/v1/route", json=body)
        response.raise_for_status()
        expert = response.json()["expert"]
        experts[question.kind][expert] += 1
        if expert != "chat":
            elsewhere.append(f"{expert}: {question.query[:80]}")
    total = sum(count.total() for count in experts.values())
    to_chat = sum(count["chat"] for count in experts.values())
    return {"n": total, "to_chat": to_chat / total, "by_kind": experts, "elsewhere": elsewhere}


if __name__ == "__main__":
    sys.exit(main())
