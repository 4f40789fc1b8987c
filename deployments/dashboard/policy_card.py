"""The card of the policy that is served: what its folder and its last evaluation say of it.

Reads only; a folder that is not the one in force, or a report of another policy, is said to be so
and not shown. Knows nothing of HTTP.
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
from deployments.upstream.registry import ExpertRegistry

TOLD = ("router", "encoder", "pool", "data_sha256", "seed", "metrics", "training", "schema_version")
"""What of the manifest is shown."""
REPORT_SUFFIX = "-report"
"""`to-router evaluate --policy X --out X-report` puts an evaluation where it is found."""
REPORT_AT_MOST_BYTES = 4 * 1024 * 1024


class PolicyCard:
    """What can be told of the policy in force."""

    def __init__(self, registry: ExpertRegistry) -> None:
        self._registry = registry

    def prices(self, allowed: Collection[str] | None) -> dict[str, Any]:
        """US$ per million tokens by expert, and the default preference.

        Args:
            allowed: the experts that may be told of; `None` for all.
        """
        policy = self._registry.policy
        if policy is None:
            return {"policy_id": None, "prices": {}, "preferences": None}
        return {
            "policy_id": policy.policy_id,
            "prices": {
                name: {"input": price.input, "output": price.output}
                for name, price in policy.prices.items()
                if allowed is None or name in allowed
            },
            "preferences": None if policy.preferences is None else asdict(policy.preferences),
        }

    async def read(self) -> dict[str, Any]:
        """Everything that is known; `why` says what is missing."""
        policy = self._registry.policy
        if policy is None:
            return {**self.prices(None), "why": [self._registry.router_error or "no policy is served yet"]}
        known = {
            **self.prices(None),
            "folder": policy.folder,
            "experts": list(policy.experts),
            "static_ranking": list(policy.static_ranking),
            "best_single": policy.best_single,
        }
        return await asyncio.to_thread(_with_files, known)


def _with_files(known: dict[str, Any]) -> dict[str, Any]:
    folder = resolve(known["folder"])
    why: list[str] = []
    told: dict[str, Any] = {"manifest": None, "written": None, "card": None, "report": None}
    try:
        raw = (folder / "manifest.json").read_bytes()
        if hashlib.sha256(raw).hexdigest()[:12] == known["policy_id"]:
            manifest = json.loads(raw)
            told["manifest"] = {name: manifest.get(name) for name in TOLD}
            changed = (folder / "manifest.json").stat().st_mtime
            told["written"] = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
            told["card"] = (folder / "CARD.md").read_text(encoding="utf-8")
        else:
            why.append(f"{known['folder']} holds another policy than the one in force")
    except (OSError, ValueError) as error:
        why.append(f"the folder {known['folder']} cannot be read here: {type(error).__name__}")
    try:
        told["report"] = _report(folder, known)
    except (OSError, ValueError) as error:
        why.append(str(error))
    return {**known, **told, "why": why}


def _report(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """The evaluation beside the policy's folder.

    Raises:
        ValueError: there is none of this policy; the message says how to make one.
    """
    place = f"{known['folder'].rstrip('/')}{REPORT_SUFFIX}"
    how = f"to-router evaluate --policy {known['folder']} --outcomes FILE --out {place}"
    file = folder.with_name(folder.name + REPORT_SUFFIX) / "report.json"
    if not file.is_file():
        raise ValueError(f"no evaluation lies in {place}; make one: {how}")
    if file.stat().st_size > REPORT_AT_MOST_BYTES:
        raise ValueError(f"{place}/report.json is larger than {REPORT_AT_MOST_BYTES} bytes: not shown")
    found = json.loads(file.read_bytes())
    if not isinstance(found, dict) or found.get("policy_id") != known["policy_id"]:
        raise ValueError(f"{place}/report.json tells of another policy; make a new one: {how}")
    return found
