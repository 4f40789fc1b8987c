"""API keys: a file of salted digests, and the owner of a request's key.

A key is `tor-<id>-<secret>`: the id finds the record, the secret is 256 random bits. Its digest is
HMAC-SHA256 under a salt of the record's own. A slow hash (scrypt, argon2) makes guessing a *weak*
secret expensive; 256 random bits cannot be guessed at any speed, and a slow hash per request would let
wrong keys use up the ingress' processor. Comparisons are `hmac.compare_digest`. Knows no HTTP framework.
"""

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from deployments.contracts.errors import ErrorCode, NotAuthenticated, Unavailable
from deployments.settings import Settings
from router.errors import InputError
from router.files import write_atomically
from router.validation import explain

logger = logging.getLogger("ray.serve")

NO_KEY = "none"
"""The key's id in metrics and logs where no key is needed."""
PREFIX = "tor"
FILE_VERSION = 1
NO_SALT = "00" * 16


class KeyLimits(Settings):
    """Limits of a key; `None` for no limit."""

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars per day, by the clock of UTC."""

    @property
    def any(self) -> bool:
        """Whether the key has any limit."""
        return any(value is not None for value in self.model_dump().values())


NO_LIMITS = KeyLimits()


class KeyRecord(Settings):
    """One key as the file holds it, without the secret."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: Annotated[str, Field(min_length=1, max_length=128)]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str
    revoked: str | None = None
    experts: list[str] | None = None
    """The experts that it may use; `None` for all."""
    preset: str | None = None
    """The preset that `auto` stands for."""
    limits: KeyLimits = KeyLimits()
    batch: bool = False
    """Whether its requests wait behind interactive ones, whatever priority they have."""


class KeyFile(Settings):
    """Contents of the key file."""

    version: Annotated[int, Field(ge=1, le=FILE_VERSION)] = FILE_VERSION
    keys: list[KeyRecord] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a request: its key's id and rights."""

    id: str
    experts: frozenset[str] | None = None
    preset: str | None = None
    limits: KeyLimits = NO_LIMITS
    batch: bool = False


def key_id(caller: Caller | None) -> str:
    """The key's id, or the label of requests without one."""
    return NO_KEY if caller is None else caller.id


class KeyFileError(InputError):
    """The key file cannot be used; the message says why and what to do."""


def digest_of(secret: str, salt: str) -> str:
    """Return the stored form of a secret."""
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def new_key(
    name: str,
    *,
    experts: list[str] | None = None,
    preset: str | None = None,
    limits: KeyLimits | None = None,
    batch: bool = False,
) -> tuple[str, KeyRecord]:
    """Make a key.

    Returns:
        The key for its owner, shown once, and the record for the file.
    """
    key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
    record = KeyRecord(
        id=key_id,
        name=name,
        salt=salt,
        digest=digest_of(secret, salt),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        experts=experts,
        preset=preset,
        limits=limits or KeyLimits(),
        batch=batch,
    )
    return f"{PREFIX}-{key_id}-{secret}", record


def read_keys(path: Path) -> KeyFile:
    """Read the file.

    Raises:
        KeyFileError: it is missing, not JSON, or not of our form.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return KeyFile.model_validate(data)
    except FileNotFoundError:
        raise KeyFileError(f"{path} does not exist: make it with `to-router keys add`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise KeyFileError(f"{path} is not JSON: {error}") from error
    except ValidationError as error:
        raise KeyFileError(f"{path}: {explain(error, '')}") from None


def write_keys(path: Path, keys: KeyFile) -> None:
    """Replace the file as a whole: a reader sees the old one or the new one, readable by its owner only."""
    write_atomically(path, keys.model_dump_json(indent=2) + "\n", mode=0o600, durable=True)


class KeyRing:
    """The keys in effect; read again when the file changes.

    Args:
        path: the key file.
        max_concurrent: limit of a key that has none of its own; `None` for no limit.
    """

    def __init__(self, path: Path, max_concurrent: int | None = None) -> None:
        self.path = path
        self._max_concurrent = max_concurrent
        self.error: str | None = "the key file has not been read yet"
        self._keys: dict[str, KeyRecord] | None = None
        self._seen: tuple[int, int, int] | None = None

    @property
    def is_read(self) -> bool:
        """Whether a valid file was ever read."""
        return self._keys is not None

    def refresh(self) -> None:
        """Read the file if it changed; an invalid one sets `error`, and the last good one stays in effect."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            seen = None
        if seen is not None and seen == self._seen:
            return
        try:
            file = read_keys(self.path)
        except KeyFileError as error:
            if self.error != str(error):
                logger.error("key file rejected: %s", error)
            self.error = str(error)
            return
        self._keys = {record.id: record for record in file.keys if record.revoked is None}
        self._seen, self.error = seen, None

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Return the owner of a request's key.

        The key is in `Authorization: Bearer`, or in `x-api-key` as Anthropic's clients send it.

        Raises:
            NotAuthenticated: the request has no key, or one that is not in effect.
            Unavailable: no good key file was ever read.
        """
        if self._keys is None:
            raise Unavailable(
                "the key file cannot be read; the reason is in the logs and in /ready",
                ErrorCode.KEYS_UNAVAILABLE,
            )
        key = _key_of(headers)
        if key is None:
            raise NotAuthenticated("this endpoint needs an API key: send Authorization: Bearer <key>")
        prefix, _, rest = key.partition("-")
        key_id, _, secret = rest.partition("-")
        record = self._keys.get(key_id) if prefix == PREFIX else None
        # An unknown id takes the same work as a wrong secret.
        salt, digest = (NO_SALT, "0" * 64) if record is None else (record.salt, record.digest)
        same = hmac.compare_digest(digest_of(secret, salt), digest)
        if record is None or not same:
            raise NotAuthenticated("the API key is not valid, or was revoked")
        experts = None if record.experts is None else frozenset(record.experts)
        limits = record.limits
        if limits.max_concurrent is None and self._max_concurrent is not None:
            limits = limits.model_copy(update={"max_concurrent": self._max_concurrent})
        return Caller(record.id, experts, record.preset, limits, record.batch)


def _key_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        text = value.decode("utf-8", "replace").strip()
        if name == b"authorization" and text[:7].lower() == "bearer ":
            return text[7:].strip()
        if name == b"x-api-key" and text:
            return text
    return None
