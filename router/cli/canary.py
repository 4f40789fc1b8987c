"""The command `canary keep`: the policy of a canary that proved better becomes the one in effect."""

import argparse
import difflib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.errors import InputError

if TYPE_CHECKING:
    from router.learning.keeping import Kept

STATE, GAIN, IN_EFFECT = "to_router_canary", "to_router_canary_gain", "to_router_policy_info"
"""Metrics: the canary's state, its quality less that of its control, and the policy in effect."""
TIMEOUT_S = 10.0
ROOT_VARIABLE = "TO_ROUTER_ROOT"
"""Where the paths of a configuration start, as for the graph; unset, the current folder."""
HOW = "add --unproven to keep the canary nevertheless"


@dataclass(frozen=True, slots=True)
class Proof:
    """What the running graph measured of its canary."""

    policy: str
    """Id of the canary's policy."""
    gain: float
    low: float
    high: float


def add_commands(commands: Any) -> None:
    """Register the command with argparse's subparsers."""
    canary = commands.add_parser("canary", help="end a canary")
    verbs = canary.add_subparsers(dest="verb", required=True, metavar="VERB")
    keep = verbs.add_parser("keep", help="make the policy of a canary that proved better the one in effect")
    keep.add_argument("config", type=Path, help="the serve_config.yaml with the canary; it is changed")
    keep.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the endpoint; default: %(default)s"
    )
    keep.add_argument(
        "--unproven", action="store_true", help="keep it although its ratings do not show it to be better"
    )
    keep.add_argument("--dry-run", action="store_true", help="show the change of the file, and stop")
    keep.add_argument("--json", action="store_true", help="print the result as JSON")
    keep.set_defaults(run=_keep)


def _keep(options: argparse.Namespace) -> int:
    from router.files import write_atomically
    from router.learning.keeping import keep

    text = _text(options.config)
    try:
        kept = keep(text)
    except InputError as error:
        raise InputError(f"{options.config} {error}") from error
    proof = None if options.unproven else _proof(options.url, kept)
    proven = options.unproven or (proof is not None and proof.low > 0)
    written = proven and not options.dry_run
    if written:
        mode = options.config.stat().st_mode & 0o777
        write_atomically(options.config.resolve(), kept.text, mode=mode, durable=True)
    verdict = "kept without proof" if options.unproven else _verdict(proof)
    if options.json:
        result = {
            "config": str(options.config),
            "policy": kept.policy,
            "before": kept.before,
            "gain": None if proof is None else proof.gain,
            "ci": None if proof is None else [proof.low, proof.high],
            "written": written,
        }
        print(json.dumps(result, indent=2))
    elif not proven:
        print(f"{options.config} is unchanged: {verdict}; {HOW}")
    elif options.dry_run:
        print("".join(_difference(text, kept.text, options.config)), end="")
    else:
        before = "the policy from priors" if kept.before is None else kept.before
        print(f"{kept.policy}: {verdict}")
        print(f"{options.config} has it as the policy in effect in place of {before}, and no canary")
        print(f"now run: serve deploy {options.config}")
    return 0 if proven else 1


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except ValueError as error:
        raise InputError(f"{file} is not UTF-8: {error}") from error


def _proof(url: str, kept: "Kept") -> Proof | None:
    """What the graph measured; `None` where it has no ratings of both arms yet.

    Raises:
        InputError: the graph does not respond, compares other policies than the file's, or rolled the canary
            back.
    """
    import httpx

    try:
        response = httpx.get(f"{url.rstrip('/')}/metrics", timeout=TIMEOUT_S)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = (
            f"{url} does not respond ({error or type(error).__name__}), so nothing shows the canary's quality"
        )
        raise InputError(f"{why}: name the graph with --url, or {HOW}") from error
    states, gains, in_effect = samples(response.text)
    if not states & {"waiting", "running", "rolled_back", "over"}:
        raise InputError(f"the graph at {url} has no canary: `serve deploy` the configuration, or {HOW}")
    if "rolled_back" in states:
        raise InputError(
            f"the canary is rolled back: it was worse, and {url}/ready has the figures; or {HOW}"
        )
    # Each replica has its own look at the same sums: the most cautious one counts.
    proof = min(gains, key=lambda one: one.low, default=None)
    if proof is not None:
        _require_measured(kept.policy, {proof.policy}, "a canary with")
        if kept.before is not None:
            _require_measured(kept.before, in_effect, "it against")
    return proof


def _require_measured(named: str, measured: Collection[str], how: str) -> None:
    """Require that a folder of the file holds the policy that the graph measured."""
    from router.artifact import MANIFEST, policy_id

    folder = Path(os.environ.get(ROOT_VARIABLE, "")) / named
    try:
        here = policy_id((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read, so nothing shows that the graph measured it: "
            f"set {ROOT_VARIABLE} to the folder where the configuration's paths start, or {HOW}"
        ) from error
    if set(measured) != {here}:
        found = ", ".join(sorted(measured)) or "no policy"
        raise InputError(
            f"the graph measured {how} policy {found}, and {folder} holds {here}: "
            f"`serve deploy` first, or {HOW}"
        )


def samples(text: str) -> tuple[set[str], list[Proof], set[str]]:
    """States of the canary with a replica, the gain that each replica shows, and the policies in effect."""
    from prometheus_client.parser import text_string_to_metric_families

    states, in_effect = set[str](), set[str]()
    bounds: dict[tuple[str, str], dict[str, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == STATE and sample.value:
                    states.add(sample.labels["state"])
                elif sample.name == IN_EFFECT and sample.value:
                    in_effect.add(sample.labels["policy"])
                elif sample.name == GAIN and math.isfinite(sample.value):
                    of = sample.labels.get("replica", ""), sample.labels["policy"]
                    bounds.setdefault(of, {})[sample.labels["bound"]] = sample.value
    except (ValueError, LookupError) as error:
        raise InputError(
            f"the response is not the metrics of a graph ({error!r}): is this the endpoint?"
        ) from error
    proofs = [found for of, one in bounds.items() if (found := _complete(of[1], one)) is not None]
    return states, proofs, in_effect


def _complete(policy: str, one: Mapping[str, float]) -> Proof | None:
    if one.keys() != {"estimate", "lower", "upper"}:
        return None
    return Proof(policy, one["estimate"], one["lower"], one["upper"])


def _verdict(proof: Proof | None) -> str:
    if proof is None:
        return "there are no ratings of both arms that show its quality"
    points, low, high = (100 * number for number in (proof.gain, proof.low, proof.high))
    known = "it is proven better" if proof.low > 0 else "it is not proven better"
    return f"{known}, quality {points:+.1f} points ({low:+.1f} to {high:+.1f})"


def _difference(before: str, after: str, file: Path) -> list[str]:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return list(difflib.unified_diff(*lines, fromfile=str(file), tofile=f"{file} with the canary kept"))
