"""API keys: a file of salted digests, and who a request's key belongs to.

A key is `tor-<id>-<secret>`: the id finds the record, the secret is 256 random bits. Its digest is
HMAC-SHA256 under a salt of the record's own. A slow hash (scrypt, argon2) makes guessing a *weak*
secret dear; 256 random bits cannot be guessed at any speed, and a slow hash per request would let
wrong keys burn the ingress' processor. Compares are `hmac.compare_digest`. Knows no HTTP framework.
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
from deployments.settings import Settings, explain
from router.errors import InputError
from router.files import write_atomically

logger = logging.getLogger("ray.serve")

PREFIX = "tor"
FILE_VERSION = 1
NO_SALT = "00" * 16


class KeyLimits(Settings):
    """What a key may use; `None` for no limit."""

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Annotated[float, Field(gt=0)] | None = None
    """US dollars per day, by the clock of UTC."""

    @property
    def any(self) -> bool:
        """Whether there is anything to count."""
        return any(value is not None for value in self.model_dump().values())


NO_LIMITS = KeyLimits()


class KeyRecord(Settings):
    """One key as the file holds it; the secret itself is nowhere."""

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


class KeyFile(Settings):
    """The file as a whole."""

    version: Annotated[int, Field(ge=1, le=FILE_VERSION)] = FILE_VERSION
    keys: list[KeyRecord] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is."""

    id: str
    experts: frozenset[str] | None = None
    preset: str | None = None
    limits: KeyLimits = NO_LIMITS


class KeyFileError(InputError):
    """The key file cannot be used; the message says why and what to do."""


def digest_of(secret: str, salt: str) -> str:
    """The stored form of a secret."""
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def new_key(
    name: str,
    *,
    experts: list[str] | None = None,
    preset: str | None = None,
    limits: KeyLimits | None = None,
) -> tuple[str, KeyRecord]:
    """A fresh key: what its owner gets, once, and what the file keeps."""
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
    )
    return f"{PREFIX}-{key_id}-{secret}", record


def read_keys(path: Path) -> KeyFile:
    """The file's keys.

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
    """The keys in force; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = "the key file was not read yet"
        self._keys: dict[str, KeyRecord] | None = None
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """Read the file if it changed; a bad one is told, and the last good one stays in force."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            seen = None
        if seen is not None and seen == self._seen:
            return
        try:
            found = read_keys(self.path)
        except KeyFileError as error:
            if self.error != str(error):
                logger.error("keys not taken over: %s", error)
            self.error = str(error)
            return
        self._keys = {record.id: record for record in found.keys if record.revoked is None}
        self._seen, self.error = seen, None

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Whose key a request bears: `Authorization: Bearer`, or `x-api-key` as Anthropic's clients do.

        Raises:
            NotAuthenticated: it bears none, or one that is not in force.
            Unavailable: no good key file was ever read.
        """
        if self._keys is None:
            raise Unavailable(
                "the key file cannot be read; the operator is told why", ErrorCode.KEYS_UNAVAILABLE
            )
        given = _given(headers)
        if given is None:
            raise NotAuthenticated("this endpoint needs an API key: send Authorization: Bearer <key>")
        prefix, _, rest = given.partition("-")
        key_id, _, secret = rest.partition("-")
        record = self._keys.get(key_id) if prefix == PREFIX else None
        # An unknown id takes the same work as a wrong secret.
        salt, digest = (NO_SALT, "0" * 64) if record is None else (record.salt, record.digest)
        same = hmac.compare_digest(digest_of(secret, salt), digest)
        if record is None or not same:
            raise NotAuthenticated("the API key is not valid, or was revoked")
        experts = None if record.experts is None else frozenset(record.experts)
        return Caller(record.id, experts, record.preset, record.limits)


def _given(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        text = value.decode("utf-8", "replace").strip()
        if name == b"authorization" and text[:7].lower() == "bearer ":
            return text[7:].strip()
        if name == b"x-api-key" and text:
            return text
    return None
