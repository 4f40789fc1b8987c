"""The last valid `user_config` of a deployment, in a folder that outlives its replicas.

A replica that starts with an invalid configuration starts from it. Each machine has its own, unless
`TO_ROUTER_STATE` names a shared folder. Knows neither Ray nor what a configuration means.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from deployments.settings import Settings, state_folder
from router.artifact import MANIFEST, policy_id
from router.files import new_folder_atomically, write_atomically
from router.validation import explain

logger = logging.getLogger("ray.serve")


ROLLBACK = "rollback.json"


class SavedConfig(Settings):
    """Contents of the file."""

    version: Literal[1] = 1
    saved_at: str
    """Time in UTC."""
    user_config: dict[str, Any]
    policy_id: str | None = None
    """The policy that was served with it; `None` for a deployment without one."""


class SavedRollback(Settings):
    """Contents of the file of the last rollback."""

    version: Literal[1] = 1
    at: str
    """Time in UTC."""
    canary: str
    """Id of the canary, which names both policies, the share and the end."""
    policy_id: str
    """The policy that was rolled back."""
    why: str


class LastGood:
    """The last valid configuration of one deployment, and the policy that it served.

    Args:
        path: returns its folder, relative to that of all state; `None` in a process that keeps nothing.
    """

    def __init__(self, path: Callable[[], Path | None]) -> None:
        self._path = path

    def save(self, user_config: Mapping[str, Any], policy: tuple[str, Path] | None = None) -> None:
        """Keep a configuration that is in effect; blocks.

        A failure is logged and not raised: the configuration serves requests already.

        Args:
            user_config: the configuration.
            policy: id and folder of the policy that it serves.
        """
        folder = self._folder()
        if folder is None:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = None if policy is None else policy[0]
        try:
            if policy is not None:
                _copy(policy[1], policy[0], folder / "policies")
            saved = SavedConfig(saved_at=now, user_config=dict(user_config), policy_id=kept)
            # Readable by its owner only: a mistaken configuration may hold a key.
            write_atomically(_file(folder), saved.model_dump_json(indent=2) + "\n", mode=0o600, durable=True)
            _remove_others(kept, folder / "policies")
        except (OSError, ValueError, TypeError) as error:
            logger.error("the configuration is in effect, but not saved for a restart: %s", error)

    def load(self) -> SavedConfig | None:
        """Return the configuration that was saved last; `None` where there is none to read. Blocks."""
        folder = self._folder()
        if folder is None:
            return None
        try:
            return SavedConfig.model_validate(json.loads(_file(folder).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            logger.error("saved configuration not used: %s: %s", _file(folder), explain(error, ""))
        except (OSError, ValueError) as error:
            logger.error("saved configuration not used: %s: %s", _file(folder), error)
        return None

    def save_rollback(self, canary: str, policy: str, why: str) -> None:
        """Keep that a canary was rolled back; a failure is logged and not raised. Blocks."""
        folder = self._folder()
        if folder is None:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        saved = SavedRollback(at=now, canary=canary, policy_id=policy, why=why)
        try:
            write_atomically(folder / ROLLBACK, saved.model_dump_json(indent=2) + "\n", durable=True)
        except OSError as error:
            logger.error("the rollback is in effect, but not saved for a restart: %s", error)

    def rollback(self) -> SavedRollback | None:
        """Return the last rollback; `None` where there is none to read. Blocks."""
        folder = self._folder()
        if folder is None:
            return None
        try:
            return SavedRollback.model_validate_json((folder / ROLLBACK).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.error("saved rollback not used: %s: %s", folder / ROLLBACK, error)
        return None

    def policy_folder(self, policy: str) -> Path | None:
        """Return the folder of the copy of a policy; `None` where there is no copy."""
        folder = self._folder()
        copy = None if folder is None else folder / "policies" / policy
        return copy if copy is not None and copy.is_dir() else None

    def _folder(self) -> Path | None:
        path = self._path()
        return None if path is None else state_folder() / path


def _file(folder: Path) -> Path:
    return folder / "user_config.json"


def _copy(source: Path, policy: str, policies: Path) -> None:
    """Copy a policy's folder: its own may be replaced by an invalid one later.

    Raises:
        ValueError: the folder holds another policy by now.
        OSError: it cannot be copied.
    """
    if (policies / policy).is_dir():
        return
    try:
        with new_folder_atomically(policies / policy, durable=True) as copy:
            for file in source.iterdir():
                shutil.copyfile(file, copy / file.name)
            if policy_id((copy / MANIFEST).read_bytes()) != policy:
                raise ValueError(f"{source} no longer holds policy {policy}")
    except OSError:
        if not (policies / policy).is_dir():  # else another replica of this machine was faster
            raise


def _remove_others(policy: str | None, policies: Path) -> None:
    if policies.is_dir():
        for copy in policies.iterdir():
            if copy.name != policy and not copy.name.startswith("."):
                shutil.rmtree(copy, ignore_errors=True)
