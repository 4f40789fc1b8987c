"""Hostile clients beside an ordinary one: `python -m load_tests.hostile arrays|string|readers|headers`.

`arrays` and `string` send many large bodies at once, of empty arrays or of one long string; `readers` send
requests and read nothing; `headers` send their headers byte by byte. A process of its own measures one
ordinary path meanwhile, one request after the other. Exit code 1 if that path takes `--most-added-ms` (p99)
or `--most-ratio` (median) more than before, or a process grows by more than `--most-growth` MB.
"""

from __future__ import annotations

import argparse
import asyncio
import http
import http.client
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from load_tests.measures import spread
from load_tests.processes import find, resident_mb

CHAT = "/v1/chat/completions"
IDLE_S = 5.0
"""The ordinary path alone, before the others."""
SAMPLE_S = 0.05
BYTE_EVERY_S = 0.5
SMALLEST_WINDOW = 4096
PROBE_TIMEOUT_S = 60.0
LONG_TOKENS = 50_000
"""Of a response that no socket's buffers hold: ten megabytes as a stream."""


@dataclass
class Ordinary:
    """Requests of the ordinary path, one after the other."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    """Responses with another status than 200."""


@dataclass
class Observed:
    """What was measured while hostile clients were there."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Status, or how the connection ended → clients."""
    largest_mb: dict[str, float] = field(default_factory=dict)
    """Part → its largest resident memory."""


def main(arguments: list[str] | None = None) -> int:
    """Measure one case and print it; 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.hostile", description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--key", default="")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--mib", type=float, default=16.0, help="size of a body")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long readers and headers stay")
    parser.add_argument("--path", default="/health", help=f"the ordinary path: /health, or {CHAT}")
    parser.add_argument("--part", action="append", default=[], help="word of a process' title")
    parser.add_argument("--most-added-ms", type=float, default=None)
    parser.add_argument("--most-ratio", type=float, default=None)
    parser.add_argument("--most-growth", type=float, default=None, help="MB")
    parser.add_argument("--out", type=Path, default=Path("var/hostile"))
    options = parser.parse_args(arguments)
    parts = {part: find("ray::ServeReplica", part) for part in options.part}
    before = {part: _resident_mb(pids) for part, pids in parts.items()}
    with probing(options) as idle:
        time.sleep(IDLE_S)
    with probing(options) as under:
        observed = asyncio.run(attack(options, parts))
    report = {
        "case": options.case,
        "clients": options.clients,
        "statuses": dict(observed.statuses),
        "path": options.path,
        "idle_ms": spread(idle.seconds),
        "under_ms": spread(under.seconds),
        "failed": idle.failed + under.failed,
        "memory_mb": {
            part: {"before": before[part], "most": observed.largest_mb[part], "after": _resident_mb(pids)}
            for part, pids in parts.items()
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1)
    (options.out / f"{options.case}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    missed = missed_by(
        report,
        most_added_ms=options.most_added_ms,
        most_ratio=options.most_ratio,
        most_growth=options.most_growth,
    )
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(missed))


def missed_by(
    report: dict[str, Any],
    *,
    most_added_ms: float | None,
    most_ratio: float | None,
    most_growth: float | None,
) -> list[str]:
    """Return one line for each limit that was exceeded."""
    lines = [f"{report['failed']} requests of {report['path']} failed"] if report["failed"] else []
    idle, under = report["idle_ms"], report["under_ms"]
    added_ms = under["p99"] - idle["p99"]
    if most_added_ms is not None and added_ms > most_added_ms:
        lines.append(f"p99 of {report['path']} rose by {added_ms:.0f} ms, the limit is {most_added_ms:g}")
    ratio = under["p50"] / idle["p50"]
    if most_ratio is not None and ratio > most_ratio:
        lines.append(f"the median of {report['path']} rose {ratio:.2f} times, the limit is {most_ratio:g}")
    for part, memory in report["memory_mb"].items():
        grown = memory["most"] - memory["before"]
        if most_growth is not None and grown > most_growth:
            lines.append(f"{part} grew by {grown:.0f} MB, the limit is {most_growth:g}")
    return lines


@contextmanager
def probing(options: argparse.Namespace) -> Iterator[Ordinary]:
    """Measure the ordinary path; the figures are complete when the block has ended."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    stop = context.Event()
    process = context.Process(
        target=_probe, args=(options.url, options.path, options.model, options.key, stop, sender)
    )
    process.start()
    ordinary = Ordinary()
    receiver.recv()  # it has begun
    try:
        yield ordinary
    finally:
        stop.set()
        if receiver.poll(2 * PROBE_TIMEOUT_S):
            measured, ordinary.failed = receiver.recv()
            ordinary.seconds.extend(measured)
        process.join(10)
        process.kill()


def _probe(url: str, path: str, model: str, key: str, stop: Event, sender: Any) -> None:
    address = urlsplit(url)
    body = json.dumps(chat(model, "What is 2 + 2?", 4)) if path == CHAT else None
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PROBE_TIMEOUT_S)
    seconds: list[float] = []
    failed = 0
    for number in range(1_000_000):
        began = time.perf_counter()
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        response.read()
        failed += response.status != http.HTTPStatus.OK
        seconds.append(time.perf_counter() - began)
        if number == 0:
            seconds.clear()
            sender.send("begun")
        if stop.is_set() and seconds:
            break
        time.sleep(0.005)
    sender.send((seconds, failed))


async def attack(options: argparse.Namespace, parts: dict[str, list[int]]) -> Observed:
    """Let all hostile clients come at once, until the last one has gone."""
    observed = Observed(largest_mb=dict.fromkeys(parts, 0.0))
    watch = asyncio.create_task(_watch(parts, observed))
    head, body = CASES[options.case](options)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.clients):
                group.create_task(_client(options, head, body, observed))
    finally:
        watch.cancel()
    return observed


async def _client(options: argparse.Namespace, head: bytes, body: bytes, observed: Observed) -> None:
    address = urlsplit(options.url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=SMALLEST_WINDOW)
        if options.case == "headers":
            ended = await _byte_by_byte(reader, writer, head, options.seconds)
        else:
            writer.write(head)
            for start in range(0, len(body), 2**16):
                writer.write(body[start : start + 2**16])
                await writer.drain()
            if options.case == "readers":
                await asyncio.sleep(options.seconds)
                ended = "read nothing"
            else:
                ended = (await reader.readline()).split(b" ")[1].decode()
        writer.transport.abort()
    except (OSError, IndexError, asyncio.IncompleteReadError) as error:
        ended = type(error).__name__
    observed.statuses[ended] += 1


async def _byte_by_byte(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, seconds: float
) -> str:
    response = asyncio.create_task(reader.readline())
    end = time.monotonic() + seconds
    for byte in head * 100:
        if response.done() or time.monotonic() > end:
            break
        writer.write(bytes([byte]))
        with suppress(TimeoutError):
            async with asyncio.timeout(BYTE_EVERY_S):
                await asyncio.shield(response)
    if not response.done():
        response.cancel()
        return "still open"
    return [*response.result().split(b" "), b""][1].decode() or "closed"


async def _watch(parts: dict[str, list[int]], observed: Observed) -> None:
    while True:
        for part, pids in parts.items():
            observed.largest_mb[part] = max(observed.largest_mb[part], _resident_mb(pids))
        await asyncio.sleep(SAMPLE_S)


def _resident_mb(pids: list[int]) -> float:
    sizes = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            sizes.append(resident_mb(pid))
    return round(max(sizes, default=0.0), 1)


def chat(model: str, text: str, max_tokens: int) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}


def _request(options: argparse.Namespace, body: bytes) -> tuple[bytes, bytes]:
    lines = [
        f"POST {CHAT} HTTP/1.1",
        f"host: {urlsplit(options.url).netloc}",
        "content-type: application/json",
        f"authorization: Bearer {options.key}",
        f"content-length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), body


def _arrays(options: argparse.Namespace) -> tuple[bytes, bytes]:
    body = json.dumps(chat(options.model, "What is 2 + 2?", 4)).encode()
    count = (int(options.mib * 2**20) - len(body) - 20) // 3
    return _request(options, body[:-1] + b',"metadata":[' + b"[]," * count + b"[]]}")


def _string(options: argparse.Namespace) -> tuple[bytes, bytes]:
    body = json.dumps(chat(options.model, "What is 2 + 2?", 4)).encode()
    fill = b"x" * (int(options.mib * 2**20) - len(body) - 20)
    return _request(options, body[:-1] + b',"user":"' + fill + b'"}')


def _readers(options: argparse.Namespace) -> tuple[bytes, bytes]:
    # Simulated experts write it all at once; others ignore the field.
    simulate = {"*": {"tokens": LONG_TOKENS, "tokens_per_s": None}}
    long = chat(options.model, "Write a long text.", LONG_TOKENS) | {"stream": True, "simulate": simulate}
    return _request(options, json.dumps(long).encode())


def _headers(options: argparse.Namespace) -> tuple[bytes, bytes]:
    return _request(options, b"")[0].removesuffix(b"\r\n\r\n") + b"\r\nx-filler: ", b""


CASES = {"arrays": _arrays, "string": _string, "readers": _readers, "headers": _headers}
"""Case → its request: head and body."""


if __name__ == "__main__":
    sys.exit(main())
