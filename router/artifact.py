"""The folder of a saved policy: JSON for facts, safetensors for numbers, Markdown for people.

Knows files, hashes and shapes; nothing of what they mean. The manifest is written last and the
folder appears complete or not at all. To raise the schema: increment SCHEMA_VERSION, write the step that
turns old facts into new ones and call it in `load`, keep the old fixture in tests.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from router.core import FloatArray
from router.errors import IntegrityError, ManifestError, SchemaVersionError, WeightsError
from router.files import new_folder_atomically, require_absent

FORMAT = "to-router-policy"
SCHEMA_VERSION = 2
SCHEMA_VERSION = 3
"""1: no kind of encoder; all were transformers. 2: no plans."""
WITHOUT_PLANS = 2
"""Schema of a policy without plans: older builds read it."""
MANIFEST, WEIGHTS, CARD = "manifest.json", "router.safetensors", "CARD.md"
MOST_MANIFEST_BYTES = MOST_CARD_BYTES = 4 << 20
MOST_BYTES = 2 << 30
"""Of all files together; the largest method, a fine-tuned encoder, has 45 MB with the default one."""
MOST_FILES = 8
KINDS = "fiu"
"""numpy kinds that may be stored: floats and whole numbers."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The contents of a policy folder."""

    facts: dict[str, Any]
    arrays: dict[str, FloatArray]
    card: str
    schema_version: int = WITHOUT_PLANS


def save(folder: Path, artifact: Artifact) -> str:
    """Write a complete policy folder, and return its policy_id.

    Raises:
        FileExistsError: something exists at `folder`.
        WeightsError: an array is not finite.
        ManifestError: a fact is not JSON, such as a number that is not finite.
    """
    require_absent(folder)
    arrays = {name: np.ascontiguousarray(value) for name, value in sorted(artifact.arrays.items())}
    _check_arrays(arrays)
    # No metadata: with several keys safetensors' bytes would differ from run to run.
    files = {WEIGHTS: save_tensors(arrays), CARD: artifact.card.encode("utf-8")}
    facts = {
        "format": FORMAT,
        "schema_version": artifact.schema_version,
        **artifact.facts,
        "files": {name: {"sha256": _sha256(data), "size": len(data)} for name, data in files.items()},
    }
    try:
        manifest = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    except (TypeError, ValueError) as error:
        raise ManifestError(f"a fact of the policy for {folder} is not JSON: {error}") from error
    with new_folder_atomically(folder, durable=True) as making:
        for name, data in files.items():
            (making / name).write_bytes(data)
        (making / MANIFEST).write_bytes(manifest)
    return policy_id(manifest)


def load(folder: Path) -> tuple[Artifact, str]:
    """Read and check a policy folder; returns it with its policy_id.

    Raises:
        ManifestError: no manifest, not JSON, not a policy.
        SchemaVersionError: written by a newer build.
        IntegrityError: a file is missing, changed, of another size, or not listed.
        WeightsError: arrays that cannot be read, or are not finite.
    """
    manifest = _read_manifest(folder)
    facts = _parse_manifest(folder, manifest)
    files = facts.pop("files")
    _check_sizes(folder, files)
    _check_unlisted(folder, files)
    contents = {name: _read_listed(folder, name, listed) for name, listed in files.items()}
    try:
        arrays = load_tensors(contents[WEIGHTS])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:  # the latter: types numpy lacks
        raise WeightsError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    _check_arrays(arrays)
    return Artifact(facts, arrays, contents[CARD].decode("utf-8", "replace")), policy_id(manifest)


def policy_id(manifest: bytes) -> str:
    """First 12 hex digits of the manifest's sha256."""
    return _sha256(manifest)[:12]


def _read_manifest(folder: Path) -> bytes:
    file = folder / MANIFEST
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a policy folder: there is no such folder")
    if file.is_symlink():
        raise ManifestError(f"{file} is a link: a policy folder holds its files itself")
    if not file.is_file():
        raise ManifestError(f"{folder} is not a policy folder: it holds no {MANIFEST}")
    if file.stat().st_size > MOST_MANIFEST_BYTES:
        raise ManifestError(f"{file} is larger than {MOST_MANIFEST_BYTES} bytes")
    return file.read_bytes()


def _parse_manifest(folder: Path, manifest: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(manifest, parse_constant=_reject_constant, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or too deep to be ours
        raise ManifestError(f"{folder / MANIFEST} is not JSON: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ManifestError(
            f"{folder / MANIFEST} is not the manifest of a policy (format {FORMAT!r} expected)"
        )
    version = facts.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ManifestError(f"schema_version must be a whole number from 1, found {version!r}")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(version, SCHEMA_VERSION)
    if not isinstance(facts.get("files"), dict):
        raise ManifestError(f"{folder / MANIFEST} lists no files")
    for needed in (WEIGHTS, CARD):
        if needed not in facts["files"]:
            raise ManifestError(f"{folder / MANIFEST} does not list {needed}")
    return facts


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object with a key twice: readers differ in which value they take."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is duplicated in one object")
    return value


def _check_sizes(folder: Path, files: Mapping[str, Any]) -> None:
    """Bound what is read into memory, before any of it is read."""
    if len(files) > MOST_FILES:
        raise ManifestError(
            f"{folder / MANIFEST} lists {len(files)} files, a policy has at most {MOST_FILES}"
        )
    sizes = {
        name: file.stat().st_size
        for name in files
        if Path(name).name == name and (file := folder / name).is_file()
    }
    for what, size, most in (
        (folder / CARD, sizes.get(CARD, 0), MOST_CARD_BYTES),
        (folder, sum(sizes.values()), MOST_BYTES),
    ):
        if size > most:
            raise IntegrityError(f"{what} has {size} bytes, in a policy it has at most {most}")


def _check_unlisted(folder: Path, files: Mapping[str, Any]) -> None:
    unlisted = sorted(entry.name for entry in folder.iterdir() if entry.name not in {MANIFEST, *files})
    if unlisted:
        raise IntegrityError(f"{folder} holds {unlisted[0]}, which its manifest does not list")


def _read_listed(folder: Path, name: str, listed: Any) -> bytes:
    if Path(name).name != name or not isinstance(listed, dict):
        raise ManifestError(
            f"the manifest lists {name!r} in a form that is not a plain file with sha256 and size"
        )
    file = folder / name
    if file.is_symlink() or not file.is_file():
        raise IntegrityError(f"{file} is listed in the manifest but is not a file here")
    size = file.stat().st_size
    if size != listed.get("size"):
        raise IntegrityError(f"{file} has {size} bytes, its manifest lists {listed.get('size')}")
    data = file.read_bytes()
    if _sha256(data) != listed.get("sha256"):
        raise IntegrityError(f"{file} was changed: its sha256 is not the manifest's")
    return data


def part(arrays: Mapping[str, FloatArray], name: str) -> dict[str, FloatArray]:
    """Return the arrays of one part of a policy, by their names within it."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _check_arrays(arrays: Mapping[str, FloatArray]) -> None:
    for name, value in arrays.items():
        if value.dtype.kind not in KINDS:
            raise WeightsError(f"array {name!r} has type {value.dtype}, expected numbers")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise WeightsError(f"array {name!r} holds a value that is not finite")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
