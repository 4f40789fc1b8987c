"""The commands that look into a policy: inspect, route, verify."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from router.cli.inputs import not_negative, share
from router.core import Decision, ExpertView, Preferences, QueryBatch, RouteRequest
from router.decide import reasons
from router.encoders import load_encoder
from router.errors import EncoderError
from router.policy import Policy
from router.validation import printable


def add_commands(commands: Any) -> None:
    """Register the commands with argparse's subparsers."""
    inspect = commands.add_parser("inspect", help="what a policy folder holds")
    inspect.add_argument("policy", type=Path, help="the policy folder")
    inspect.add_argument("--json", action="store_true", help="print the facts as JSON")
    inspect.set_defaults(run=_inspect)

    route = commands.add_parser("route", help="which expert a policy chooses for a text")
    route.add_argument("--policy", required=True, type=Path, help="the policy folder")
    route.add_argument("--encoder", help="a folder or hub id, instead of where the policy's is found")
    trade = route.add_mutually_exclusive_group()
    trade.add_argument("--cost-weight", type=not_negative, help="weight of cost; 0 is best quality")
    trade.add_argument("--min-quality", type=share, help="fraction of the best score that is enough")
    route.add_argument("--max-cost-usd", type=not_negative, help="exclude experts with higher expected cost")
    route.add_argument("--exclude", default="", help="experts and plans to exclude, separated by commas")
    route.add_argument("--plans", choices=("on", "off"), default="on", help="whether plans may be chosen")
    route.add_argument(
        "--json",
        action="store_true",
        help="as POST /v1/route answers, and unfamiliar",
    )
    route.add_argument("text", help="the query; - reads standard input")
    route.set_defaults(run=_route)

    verify = commands.add_parser("verify", help="check a policy folder: files, hashes, shapes, encoder")
    verify.add_argument("policy", type=Path, help="the policy folder")
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run=_verify)


def _inspect(options: argparse.Namespace) -> int:
    from router import artifact

    found, policy_id = artifact.load(options.policy)
    if options.json:
        arrays = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in found.arrays.items()}
        print(json.dumps({"policy_id": policy_id, **found.facts, "arrays": arrays}, indent=2))
        return 0
    print(f"policy_id: {policy_id}\n\n{printable(found.card)}\n## Stored arrays\n")
    for name, array in found.arrays.items():
        print(f"- {printable(name)}: {list(array.shape)} {array.dtype}, {array.nbytes / 1024:.0f} KiB")
    return 0


def _route(options: argparse.Namespace) -> int:
    policy = Policy.load(options.policy)
    # Lone surrogates: bytes of an argument that are not in the terminal's encoding.
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if options.text == "-" else options.text
    text = text.encode("utf-8", "replace").decode("utf-8")
    preferences = Preferences(
        cost_weight=options.cost_weight, min_quality=options.min_quality, max_cost_usd=options.max_cost_usd
    )
    excluded = [name for name in options.exclude.split(",") if name]
    for name in excluded:
        if name not in policy.candidates:
            policy.pool.column(name)
    encoder = load_encoder(options.encoder or policy.encoder, device="cpu")
    if encoder.spec.sha256 != policy.encoder.sha256:
        raise EncoderError(
            f"the policy was trained with encoder {policy.encoder.id} ({policy.encoder.sha256[:12]}), "
            f"--encoder is {encoder.spec.id} ({encoder.spec.sha256[:12]})"
        )
    out = dict.fromkeys(excluded, "named in --exclude")
    request = RouteRequest(text, preferences, excluded=out, plans=options.plans == "on")
    (decision,) = policy.decide(QueryBatch((text,), encoder.encode([text])), [request])
    text = json.dumps(_as_json(decision), indent=2) if options.json else _as_text(decision)
    print(text)
    return 0


def _as_json(decision: Decision) -> dict[str, Any]:
    sentences = reasons(decision)
    return {
        "expert": decision.expert,
        "ranking": list(decision.ranking),
        "policy": decision.policy_id,
        "reason": "routed",
        "unfamiliar": decision.unfamiliar,
        "experts": {name: _view_as_json(view, sentences[name]) for name, view in decision.experts.items()},
        "plans": {
            name: {
                **_view_as_json(plan.view, sentences[name]),
                "ask": list(plan.ask),
                "samples": plan.samples,
                "else": plan.otherwise,
                "p_accept": plan.p_accept,
            }
            for name, plan in decision.plans.items()
        },
    }


def _view_as_json(view: ExpertView, reason: str) -> dict[str, Any]:
    return {
        "score": view.score,
        "cost_usd": view.cost_usd,
        "ttft_ms": view.ttft_ms,
        "eligible": view.eligible,
        "excluded_because": view.excluded_because,
        "utility": view.utility,
        "reason": reason,
    }


def _as_text(decision: Decision) -> str:
    lines = [decision.candidate]
    sentences = reasons(decision)
    for name in decision.ranking:
        view = decision.plans[name].view if name in decision.plans else decision.experts[name]
        cost = "cost unknown" if view.cost_usd is None else f"{view.cost_usd:.3g} US$"
        lines.append(f"  {name}: score {view.score:.3f}, {cost}; {sentences[name]}")
    lines += [f"  {name}: {sentences[name]}" for name in decision.exclusions]
    if decision.unfamiliar:
        lines.append("  far from all training queries: scores are the experts' means")
    return "\n".join(lines)


def _verify(options: argparse.Namespace) -> int:
    from router.encoders.source import find

    policy = Policy.load(options.policy)
    find(policy.encoder)
    facts = {"policy_id": policy.policy_id, "experts": list(policy.pool.names), "encoder": policy.encoder.id}
    if options.json:
        print(json.dumps(facts))
    else:
        print(f"policy {policy.policy_id} is sound: {', '.join(policy.pool.names)}")
    return 0
