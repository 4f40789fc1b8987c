"""Print, five times a second, how many requests the engines of the named experts run and queue.

`python -m tests.deployments.e2e.watch EXPERT…`; reads each expert's own metrics through its handle,
so it works for real and for simulated engines.
"""

import asyncio
import json
import re
import sys
import time

import ray

from deployments.contracts.errors import ExpertError
from deployments.upstream.serve_client import ServeExpert

BUSY = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)


async def busy(expert: ServeExpert) -> float:
    """Running and waiting requests of one replica."""
    stream = await expert.open("GET", "/metrics", (), b"", 5)
    body = stream.head.body + b"".join([chunk async for chunk in stream.rest])
    return sum(float(value) for value in BUSY.findall(body))


async def main(names: list[str]) -> None:
    """Print until the process is ended."""
    experts = [ServeExpert(name, f"expert-{name}") for name in names]
    while True:
        try:
            total = sum(await asyncio.gather(*(busy(expert) for expert in experts)))
            sys.stdout.write(json.dumps({"busy": total, "at": time.time()}) + "\n")
            sys.stdout.flush()
        except ExpertError as error:
            sys.stderr.write(f"{error}\n")
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    ray.init(address="auto", log_to_driver=False)
    asyncio.run(main(sys.argv[1:]))
