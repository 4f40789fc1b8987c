"""The card of the policy in effect: facts from its folder and from its last evaluation.

Reads only. A folder or a report of another policy is reported as such and not shown.
Knows nothing of HTTP.
"""

import asyncio
import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.settings import resolve
from deployments.upstream.eligibility import PRIOR
from deployments.upstream.registry import ExpertRegistry

MANIFEST_FACTS = ("router", "encoder", "pool", "data_sha256", "seed", "metrics", "training", "schema_version")
"""The fields of the manifest that are shown."""
REPORT_SUFFIX = "-report"
"""`to-router evaluate --policy X --out X-report` writes an evaluation to where the card reads it."""
MAX_REPORT_BYTES = 4 * 1024 * 1024


class PolicyCard:
    """Everything that is known about the policy in effect."""

    def __init__(self, registry: ExpertRegistry) -> None:
        self._registry = registry

    def prices(self, allowed: Collection[str] | None) -> dict[str, Any]:
        """Prices in US$ per million tokens by expert, what is known of them, and the default preference.

        Args:
            allowed: the experts that the caller may use; `None` for all.
        """
        policy = self._registry.policy
        about = {
            name: {"description": target.description, "example": target.example}
            for name, target in self._registry.config.experts.items()
            if allowed is None or name in allowed
        }
        if policy is None:
            return {"policy_id": None, "prices": {}, "preferences": None, "about": about}
        return {
            "about": about,
            "policy_id": policy.policy_id,
            "prices": {
                name: {"input": price.input, "output": price.output}
                for name, price in policy.prices.items()
                if allowed is None or name in allowed
            },
            "preferences": None if policy.preferences is None else asdict(policy.preferences),
        }

    async def read(self) -> dict[str, Any]:
        """Read folder and evaluation; `why` lists what is missing, and the reason."""
        policy = self._registry.policy
        if policy is None:
            return {**self.prices(None), "why": [self._registry.router_error or "no policy is served yet"]}
        known = {
            **self.prices(None),
            "folder": policy.folder,
            "experts": list(policy.experts),
            "static_ranking": list(policy.static_ranking),
            "best_single": policy.best_single,
            "is_prior": policy.is_prior,
            "plans": {
                name: {
                    "ask": list(served.plan.ask),
                    "samples": served.plan.samples,
                    "at_least": served.plan.at_least,
                    "else": served.plan.otherwise,
                }
                for name, served in policy.plans.items()
            },
        }
        if policy.is_prior:
            known["next"] = PRIOR
        return await asyncio.to_thread(_with_files, known)


def _with_files(known: dict[str, Any]) -> dict[str, Any]:
    folder = resolve(known["folder"])
    why: list[str] = [known.pop("next")] if "next" in known else []
    facts: dict[str, Any] = {"manifest": None, "written": None, "card": None, "report": None}
    try:
        raw = (folder / "manifest.json").read_bytes()
        if hashlib.sha256(raw).hexdigest()[:12] == known["policy_id"]:
            manifest = json.loads(raw)
            facts["manifest"] = {name: manifest.get(name) for name in MANIFEST_FACTS}
            changed = (folder / "manifest.json").stat().st_mtime
            facts["written"] = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
            facts["card"] = (folder / "CARD.md").read_text(encoding="utf-8")
        else:
            why.append(f"{known['folder']} holds another policy than the one in effect")
    except (OSError, ValueError) as error:
        why.append(f"the folder {known['folder']} cannot be read here: {type(error).__name__}")
    try:
        facts["report"] = _report(folder, known)
    except (OSError, ValueError) as error:
        why.append(str(error))
    return {**known, **facts, "why": why}


def _report(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """The evaluation beside the policy's folder.

    Raises:
        ValueError: there is none of this policy; the message has the command that creates one.
    """
    report_folder = f"{known['folder'].rstrip('/')}{REPORT_SUFFIX}"
    command = f"to-router evaluate --policy {known['folder']} --outcomes FILE --out {report_folder}"
    file = folder.with_name(folder.name + REPORT_SUFFIX) / "report.json"
    if not file.is_file():
        raise ValueError(f"there is no evaluation in {report_folder}; create one: {command}")
    if file.stat().st_size > MAX_REPORT_BYTES:
        raise ValueError(f"{report_folder}/report.json is larger than {MAX_REPORT_BYTES} bytes: not shown")
    report = json.loads(file.read_bytes())
    if not isinstance(report, dict) or report.get("policy_id") != known["policy_id"]:
        raise ValueError(f"{report_folder}/report.json is of another policy; create a new one: {command}")
    return report
