"""Whether a `user_config` of the ingress can take effect, and what a replica starts with where it cannot.

Knows no Ray, and puts nothing into effect itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from deployments.config import IngressConfig, KeysSettings
from deployments.last_good import SavedConfig
from router.validation import explain


class ConfigRejectedError(ValueError):
    """The configuration cannot take effect; the message says why."""


@dataclass(frozen=True, slots=True)
class LastConfig:
    """The last valid configuration of this deployment, as it was saved."""

    config: IngressConfig
    saved_at: str


def validated(user_config: Any, keys_before: KeysSettings | None) -> IngressConfig:
    """Return the configuration.

    Args:
        user_config: as Serve passes it.
        keys_before: the key settings that it would replace; `None` where no key was required.

    Raises:
        ConfigRejectedError: it is invalid, or it drops the keys without the word for it.
    """
    try:
        config = IngressConfig.model_validate(user_config or {})
    except ValidationError as error:
        raise ConfigRejectedError(explain(error, "user_config")) from error
    if keys_before is not None and config.keys is None and not config.allow_anonymous:
        raise ConfigRejectedError(
            f"user_config.keys: missing, although keys of {keys_before.file} are required until now: "
            "set it, or `allow_anonymous: true` to serve every client"
        )
    return config


def last_config(saved: SavedConfig | None) -> LastConfig | None:
    """Return a saved configuration; `None` where there is none, or where this version rejects it."""
    if saved is None:
        return None
    try:
        return LastConfig(IngressConfig.model_validate(saved.user_config), saved.saved_at)
    except ValidationError:
        return None


def may_replace(last: LastConfig, rejected: Any, unread: IngressConfig | None) -> bool:
    """Whether a replica whose configuration was rejected starts with the last one.

    Args:
        last: the last valid configuration.
        rejected: the `user_config` that was rejected.
        unread: the same, where it is valid but for its key file, which cannot be read.
    """
    if unread is not None and unread.keys == last.config.keys:
        return False  # the last one needs the same file, so it is no better
    keys_wanted = isinstance(rejected, Mapping) and rejected.get("keys") is not None
    # A saved file may be old: it never opens an ingress whose configuration now requires keys.
    return last.config.keys is not None or not keys_wanted
