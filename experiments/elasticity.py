"""One expert's replicas under load, at rest, scaled to zero and back, beside the others', as a plot.

    python -m cluster.local.nodes up
    python -m experiments.elasticity --expert arithmetic --out var/elasticity

The expert scales from its minimum to its maximum and back; then its minimum becomes 0 in place, it scales
to zero, and back from zero twice: for a request that waits for it, and for one that the next expert serves.
Writes samples.json and replicas.png. The load is bounded and stays on this machine.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.dashboard_api import HTTP_PORT, deploy, running_replicas
from cluster.local.network import HEAD_IP
from cluster.local.nodes import CONFIG
from router.errors import RouterError

URL = f"http://{HEAD_IP}:{HTTP_PORT}"
EVERY_S = 1.0
QUIET_S = 10.0
TOKENS = 32
"""Tokens of each answer under load: a sixth of a second at the simulated engine's speed."""
EVENTS_A_LINE = 4
QUESTION = "what is 2 + 2?"


@dataclass(slots=True)
class Recording:
    """Samples, second by second, and events with their times."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    clients: int = 0
    began: float = field(default_factory=time.monotonic)

    def note(self, text: str) -> None:
        """Record and print an event."""
        self.events.append({"t_s": time.monotonic() - self.began, "event": text})
        print(f"{self.events[-1]['t_s']:6.1f} s  {text}", flush=True)

    def sample(self, until: Callable[[dict[str, int]], bool], within_s: float) -> bool:
        """Sample the replicas until a condition holds; false if it does not in time."""
        ends = time.monotonic() + within_s
        while True:
            replicas = running_replicas()
            self.samples.append(
                {"t_s": time.monotonic() - self.began, "clients": self.clients, "replicas": replicas}
            )
            if until(replicas):
                return True
            if time.monotonic() > ends:
                return False
            time.sleep(EVERY_S)

    def rest(self, seconds: float) -> None:
        """Sample for some seconds."""
        self.sample(lambda _: False, seconds)


class Elasticity:
    """The course of one expert on a running local cluster."""

    def __init__(self, config: Mapping[str, Any], expert: str, within_s: float) -> None:
        self._config, self._expert, self._within_s = config, expert, within_s
        self._app = next(a for a in config["applications"] if (a.get("args") or {}).get("name") == expert)
        self._scale = self._app["deployments"][0]["autoscaling_config"]
        self.recording = Recording()

    def run(self, clients: int, load_s: float) -> dict[str, Any]:
        """Run the whole course and return its results."""
        seen = self.recording
        seen.rest(QUIET_S)
        reached = self._load(clients, load_s)
        low = int(self._scale["min_replicas"])
        back = seen.sample(lambda now: now[self._app["name"]] == low, self._within_s)
        seen.note(f"{'back' if back else 'not back'} at {low}")
        seen.rest(5)
        waited = self._cold("wait", self._expert)
        passed = self._cold("next", "auto")
        deploy(self._config)
        others = {
            name: sorted({sample["replicas"].get(name, 0) for sample in seen.samples})
            for name in seen.samples[0]["replicas"]
            if name != self._app["name"]
        }
        return {
            "expert": self._expert,
            "maximum": self._scale["max_replicas"],
            "most_replicas_under_load": reached,
            "back_at_minimum": back,
            "requests": len(seen.statuses),
            "failed": sum(status != 200 for status in seen.statuses),
            "cold_wait": waited,
            "cold_next": passed,
            "replica_counts_of_the_others": others,
        }

    def _load(self, clients: int, load_s: float) -> int:
        ended = threading.Event()
        body = _body(self._expert, TOKENS)

        def client() -> None:
            with httpx.Client(timeout=120) as http:
                while not ended.is_set():
                    response = http.post(f"{URL}/v1/chat/completions", json=body)
                    self.recording.statuses.append(response.status_code)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        first = len(self.recording.samples)
        self.recording.clients = clients
        self.recording.note(f"{clients} clients call {self._expert}")
        for thread in threads:
            thread.start()
        try:
            self.recording.rest(load_s)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        self.recording.clients = 0
        self.recording.note("the load ends")
        return max(int(sample["replicas"][self._app["name"]]) for sample in self.recording.samples[first:])

    def _cold(self, manner: str, model: str) -> dict[str, Any]:
        """Scale to zero with this `cold:`, send one request, and wait for a replica."""
        changed = json.loads(json.dumps(self._config))  # a copy without the sharing of YAML anchors
        for app in changed["applications"]:
            if app["name"] == self._app["name"]:
                app["deployments"][0]["autoscaling_config"]["min_replicas"] = 0
            for deployment in app["deployments"]:
                if deployment["name"] == "Ingress":
                    deployment["user_config"]["experts"][self._expert]["cold"] = manner
        deploy(changed)
        seen, name = self.recording, self._app["name"]
        at_zero = seen.sample(lambda now: now[name] == 0, self._within_s)
        seen.note(f"min_replicas 0: {'scaled to zero' if at_zero else 'not scaled to zero'}")
        seen.rest(3)
        began = time.monotonic()
        response = httpx.post(f"{URL}/v1/chat/completions", json=_body(model, 4), timeout=120)
        took = time.monotonic() - began
        expert = response.headers.get("x-router-expert")
        seen.note(f"cold: {manner}: {response.status_code} by {expert} after {took:.2f} s")
        scaled_up = seen.sample(lambda now: now[name] > 0, self._within_s)
        seen.rest(3)
        return {
            "scaled_to_zero": at_zero,
            "status": response.status_code,
            "served_by": expert,
            "seconds": took,
            "scaled_up": scaled_up,
        }


def _body(model: str, tokens: int) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens}


def plot(samples: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plot replicas of each expert as steps, clients as an area, events as numbered lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    times = [sample["t_s"] for sample in samples]
    names = sorted({name for sample in samples for name in sample["replicas"]})
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    behind = axes.twinx()
    behind.fill_between(times, [s["clients"] for s in samples], step="post", alpha=0.15, color="grey")
    behind.set(ylabel="clients at once (grey)", ylim=(0, None))
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    for number, name in enumerate(names):
        shift = 0.04 * (number - (len(names) - 1) / 2)  # equal counts stay visible side by side
        counts = [sample["replicas"].get(name, 0) + shift for sample in samples]
        axes.step(times, counts, where="post", label=name, linewidth=2)
    axes.set(xlabel="seconds", ylabel="running replicas", ylim=(-0.2, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for number, event in enumerate(events, 1):
        axes.axvline(event["t_s"], color="black", linewidth=0.6, linestyle=":")
        axes.annotate(str(number), (event["t_s"], 1.0), xycoords=("data", "axes fraction"), va="bottom")
    labels = [f"{number}  {event['event']}" for number, event in enumerate(events, 1)]
    lines = [labels[start : start + EVENTS_A_LINE] for start in range(0, len(labels), EVENTS_A_LINE)]
    figure.supxlabel("\n".join("      ".join(line) for line in lines), fontsize=8)
    axes.legend(loc="upper right")
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Record and plot; 2 with one clear line if no cluster responds."""
    parser = argparse.ArgumentParser(prog="python -m experiments.elasticity", description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the configuration of `nodes up`")
    parser.add_argument("--expert", default="arithmetic")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--load-s", type=float, default=45)
    parser.add_argument("--within-s", type=float, default=90, help="longest wait for one change of replicas")
    parser.add_argument("--out", type=Path, default=Path("var/elasticity"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    course = Elasticity(config, options.expert, options.within_s)
    try:
        result = course.run(options.clients, options.load_s)
    except (httpx.HTTPError, RouterError) as error:
        print(f"stopped: {error}; is there a cluster (`python -m cluster.local.nodes up`)?", file=sys.stderr)
        return 2
    seen = course.recording
    data = {"result": result, "events": seen.events, "samples": seen.samples}
    (options.out / "samples.json").write_text(json.dumps(data) + "\n", encoding="utf-8")
    plot(seen.samples, seen.events, options.out / "replicas.png")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
