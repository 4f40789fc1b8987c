"""Tables of `experiments.prior_pools`: pooled over pools and seeds, with intervals; also for saved runs.

`python -m experiments.prior_tables FILE…` prints them from the JSON files of several runs.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

Run = dict[str, object]
KEY = ("pool", "condition", "seed", "families", "policy")
"""What identifies a run."""
DRAWS = 2000
"""Of the bootstrap over seeds within pools."""


def main() -> None:
    """Print the tables of the files named on the command line; of equal runs the last counts."""
    parser = argparse.ArgumentParser(prog="python -m experiments.prior_tables", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON of experiments.prior_pools")
    found = [run for file in parser.parse_args().files for run in json.loads(file.read_text("utf-8"))]
    print(tables(list({tuple(run[part] for part in KEY): run for run in found}.values())))


def tables(runs: Sequence[Run]) -> str:
    """Markdown: a table for each condition and kind of family, and what was to be shown."""
    lines = []
    for condition in dict.fromkeys(str(run["condition"]) for run in runs):
        inside = [run for run in runs if run["condition"] == condition]
        for families in ("same", "other"):
            if part := [run for run in inside if run["families"] == families]:
                lines += [f"### {condition}; probes of {families} families", "", *_table(part), ""]
        lines += [f"### {condition}; what was to be shown", "", *_shown(inside), ""]
    return "\n".join(lines)


def _table(runs: Sequence[Run]) -> list[str]:
    pools = list(dict.fromkeys(str(run["pool"]) for run in runs))
    lines = [
        "AIQ over the zero router; quality at the default preference, and at cost weight 0, over the single "
        "expert that the prior prefers; points, means over seeds, pooled with intervals of 95 %.",
        "",
        "| policy | "
        + " | ".join(f"AIQ {pool}" for pool in pools)
        + " | AIQ, pooled | default, pooled | weight 0, pooled |",
        "|---|" + "---|" * (len(pools) + 3),
    ]
    prior = [run for run in runs if run["policy"] == "prior"]
    lines.append(_row("random expert", prior, pools, None, "random", "random"))
    lines.append(_row("best single by prior", prior, pools, None, "single", "single"))
    for policy in dict.fromkeys(str(run["policy"]) for run in runs):
        own = [run for run in runs if run["policy"] == policy]
        lines.append(_row(policy, own, pools, "aiq", "default", "best"))
    lines.append(_row("best single by hindsight", prior, pools, None, "top_single", "top_single"))
    return lines


def _row(
    name: str, runs: Sequence[Run], pools: Sequence[str], aiq: str | None, default: str, top: str
) -> str:
    cells = ["–"] * (len(pools) + 1)
    if aiq is not None:
        cells = [
            pooled([run for run in runs if run["pool"] == pool], over_zero, alone=True) for pool in pools
        ]
        cells.append(pooled(runs, over_zero))
    cells += [pooled(runs, _less(default, "single")), pooled(runs, _less(top, "single"))]
    return f"| {name} | " + " | ".join(cells) + " |"


def _shown(runs: Sequence[Run]) -> list[str]:
    def of(policy: str, families: str) -> dict[tuple[str, str], Run]:
        return {
            (str(run["pool"]), str(run["seed"])): run
            for run in runs
            if run["policy"] == policy and run["families"] == families
        }

    lines = ["| target | measured |", "|---|---|"]
    prior, other = of("prior", "same"), of("prior", "other")
    lines.append(
        "| prior at its default preference, over the single expert that it prefers: from -0.5 points | "
        f"{pooled(prior.values(), _less('default', 'single'))} |"
    )
    lines.append(f"| AIQ of the prior over the zero router: above 0 | {pooled(prior.values(), over_zero)} |")
    full = of("full training", "same")
    for count in (50, 100, 200):
        chosen, drawn = of(f"{count} chosen probes", "same"), of(f"{count} random probes", "same")
        lines.append(f"| {count} probes, gain of chosen over gain of random ones | {ratio(chosen, drawn)} |")
    ways = {
        "200 chosen probes": of("200 chosen probes", "same"),
        "200 random probes": of("200 random probes", "same"),
        "training with the prior on 200 outcomes": of("200 outcomes, training with the prior", "same"),
    }
    gains = {
        "gain in AIQ over the zero router": over_zero,
        "gain in AIQ over the prior": lambda run: number(run, "aiq") - number(run, "prior_aiq"),
        "gain in quality at cost weight 0 over the prior's single expert": _less("best", "single"),
    }
    for runs_of in (full, *ways.values()):
        runs_of.update({key: run | {"prior_aiq": prior[key]["aiq"]} for key, run in runs_of.items()})
    for gain, figure in gains.items():
        for way, found in ways.items():
            lines.append(f"| {way}, of full training's {gain}: from 0.70 | {ratio(found, full, figure)} |")
    probed = of("200 chosen probes", "other")
    for what, name in (("aiq", "AIQ"), ("default", "default"), ("best", "weight 0")):
        apart = pooled(
            [
                {"pool": key[0], "gain": number(probed[key], what) - number(other[key], what)}
                for key in probed.keys() & other.keys()
            ],
            lambda run: number(run, "gain"),
        )
        lines.append(f"| 200 probes of other families over the prior, {name}: from 0 | {apart} |")
    return lines


def number(run: Run, name: str) -> float:
    """A figure of a run."""
    return float(str(run[name]))


def over_zero(run: Run) -> float:
    """AIQ of a run over the zero router."""
    return number(run, "aiq") - number(run, "zero_aiq")


def _less(what: str, against: str) -> Callable[[Run], float]:
    return lambda run: number(run, what) - number(run, against)


def pooled(runs: Iterable[Run], figure: Callable[[Run], float], *, alone: bool = False) -> str:
    """The mean over pools in points, and unless `alone` its interval by a bootstrap over seeds in pools."""
    groups = _by_pool([(str(run["pool"]), 100 * figure(run)) for run in runs])
    if not groups:
        return "–"
    mean = np.mean([values.mean() for values in groups])
    if alone:
        return f"{mean:+.2f}"
    low, high = np.quantile([np.mean([v.mean() for v in drawn]) for drawn in _drawn(groups)], [0.025, 0.975])
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def ratio(
    of: dict[tuple[str, str], Run],
    against: dict[tuple[str, str], Run],
    figure: Callable[[Run], float] = over_zero,
) -> str:
    """The ratio of two gains, each a mean over pools, with its interval."""
    keys = sorted(of.keys() & against.keys())
    if not keys:
        return "–"
    groups = _by_pool([(key[0], (figure(of[key]), figure(against[key]))) for key in keys])
    parts = [
        np.mean([values.mean(axis=0) for values in drawn], axis=0) for drawn in (groups, *_drawn(groups))
    ]
    shares = [float(part[0] / part[1]) for part in parts]
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    each = ", ".join(f"{np.divide(*values.mean(axis=0)):.2f}" for values in groups)
    return f"{shares[0]:.2f} ({low:.2f} to {high:.2f}); by pool {each}"


def _by_pool(found: Sequence[tuple[str, object]]) -> list[np.ndarray]:
    pools = dict.fromkeys(pool for pool, _ in found)
    return [np.array([value for name, value in found if name == pool]) for pool in pools]


def _drawn(groups: Sequence[np.ndarray]) -> Iterable[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[values[rng.integers(len(values), size=len(values))] for values in groups] for _ in range(DRAWS)]


if __name__ == "__main__":
    main()
