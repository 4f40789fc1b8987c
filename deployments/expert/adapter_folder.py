"""The folder of a LoRA adapter, as PEFT saves it: its content hash, and whether an engine can serve it.

Reads JSON and the headers of safetensors; knows neither Ray nor vLLM, so that `to-router check` rejects
what a replica would reject. Weights in pickle files are never read.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1024 * 1024
MAX_WEIGHT_BYTES = 8 * 1024**3
"""A larger file is no adapter, and is not copied."""
HASH_DIGITS = 12
"""Digits of a content hash in the name under which an adapter is loaded."""
TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
FROM_LAYERS = re.compile(r"(?:^|\.)(layers\.\d+\..+)")
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, [], ["classifier"], ["score"], ["classifier", "score"]),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    "use_bdlora": (None, False, {}),
    "use_qalora": (None, False),
}
"""Field of the configuration → the values with which vLLM 0.32 serves the adapter."""
INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Texts of `init_lora_weights` that vLLM 0.32 serves, beside truth values: others change the base model."""
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:[^\s/'\"]+/)*([^\s/'\"]+)")
"""A path, with its last part."""
MAX_SHOWN = 300
"""Characters of a reason that callers see."""


class AdapterRejectedError(Exception):
    """An adapter cannot be served; the message says why."""

    @property
    def shown(self) -> str:
        """The reason in one line, for callers: without this machine's folders."""
        return ABSOLUTE_PATH.sub(r"\1", " ".join(str(self).split()))[:MAX_SHOWN]


@dataclass(frozen=True, slots=True)
class Base:
    """The model that adapters are for, as far as its own files show it."""

    source: str
    """A folder or a hub id."""
    modules: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    """Module → shape of its weight, `None` where quantization hides it; empty where there is no folder."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an engine needs to know of an adapter."""

    rank: int
    parameters: int
    modules: frozenset[str]
    """Last parts of their names, such as `q_proj`."""
    other_base: str | None
    """The model that it names as its base, where that is another name than the served one's."""


def read_base(source: str) -> Base:
    """Read the modules of a model in a folder; those of a hub id remain unknown.

    Raises:
        AdapterRejectedError: the folder cannot be read.
    """
    folder = Path(source)
    if not folder.is_dir():
        return Base(source)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shapes = {
            name: shape
            for file in sorted(folder.glob("*.safetensors"))
            for name, shape in _shapes(file).items()
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterRejectedError(f"the model's folder {folder} cannot be read: {error}") from error
    hidden = isinstance(config, dict) and config.get("quantization_config") is not None
    modules: dict[str, tuple[int, ...] | None] = {}
    for name, shape in shapes.items():
        module, _, part = name.rpartition(".")
        layer = _from_layers(module)
        if part == "weight" and not hidden:
            # Two towers of one model may both have such a layer, of other shapes: either may be meant.
            modules[layer] = shape if modules.get(layer, shape) == shape else None
        else:
            modules.setdefault(layer, None)
    return Base(source, modules)


def fetch(source: str) -> Path:
    """Fetch the two files of an adapter from the hub; blocks for as long as that takes.

    Raises:
        AdapterRejectedError: it is no hub id, or cannot be fetched.
    """
    if not is_hub_id(source):
        raise AdapterRejectedError(f"{source} is no folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        why = type(error).__name__
        raise AdapterRejectedError(f"{source} is no folder, and the hub did not send it ({why})") from error


def copy_adapter(folder: Path, into: Path) -> str:
    """Copy an adapter's two files, so that what is loaded later is what was checked, and return their hash.

    Raises:
        AdapterRejectedError: a file is missing, too large or not readable.
    """
    digest = hashlib.sha256()
    for name, most in ((CONFIG, MAX_CONFIG_BYTES), (WEIGHTS, MAX_WEIGHT_BYTES)):
        file = folder / name
        try:
            if not file.is_file():
                raise AdapterRejectedError(f"{file} is missing")
            if file.stat().st_size > most:
                raise AdapterRejectedError(f"{file} has more than {most} bytes")
            shutil.copyfile(file, into / name)
            with (into / name).open("rb") as copied:
                digest.update(hashlib.file_digest(copied, "sha256").digest())
        except OSError as error:
            raise AdapterRejectedError(f"{file} cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:HASH_DIGITS]


def inspect(folder: Path, base: Base, *, max_rank: int) -> AdapterFacts:
    """Check that an engine can serve an adapter.

    Args:
        folder: the adapter's.
        base: the model that the engine serves.
        max_rank: the engine's `max_lora_rank`.

    Raises:
        AdapterRejectedError: it is corrupt, made for another model, of too high a rank, or of a kind that
            vLLM does not serve.
    """
    config = _config(folder)
    sides = _tensors(folder)
    rank = max(shape[0] for (_, side), shape in sides.items() if side == "A")
    highest = max(rank, config["r"], *(config.get("rank_pattern") or {}).values())
    if highest > max_rank:
        raise AdapterRejectedError(f"its rank {highest} is above max_lora_rank {max_rank}")
    for module in sorted({module for module, _ in sides}):
        _check_module(module, sides, base)
    named = config.get("base_model_name_or_path")
    named = named if isinstance(named, str) and named else None
    other = None if named is None or _last(named) == _last(base.source) else named
    if other is not None and not base.modules and is_hub_id(other) and is_hub_id(base.source):
        raise AdapterRejectedError(f"it was made for {other}, and the engine serves {base.source}")
    modules = frozenset(module.rpartition(".")[2] for module, _ in sides)
    return AdapterFacts(rank, sum(shape[0] * shape[1] for shape in sides.values()), modules, other)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterRejectedError(f"{CONFIG} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AdapterRejectedError(f"{CONFIG} is not JSON") from error
    if not isinstance(config, dict):
        raise AdapterRejectedError(f"{CONFIG} must hold an object")
    if config.get("peft_type", "LORA") != "LORA":
        raise AdapterRejectedError(f"peft_type is {config['peft_type']!r}; only LORA is served")
    for name in ("r", "lora_alpha"):
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise AdapterRejectedError(f"{CONFIG}: {name} must be a positive number, found {value!r:.40}")
    for name, served in UNSUPPORTED.items():
        if config.get(name) not in served:
            raise AdapterRejectedError(f"vLLM serves no adapter with {name}: {config[name]!r:.40}")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in INITS:
        raise AdapterRejectedError(
            f"vLLM serves no adapter with init_lora_weights: {init!r:.40}, which changes the base model"
        )
    if "target_modules" not in config:
        raise AdapterRejectedError(f"{CONFIG}: target_modules is missing, and vLLM requires it")
    ranks = config.get("rank_pattern") or {}
    if not isinstance(ranks, dict) or not all(isinstance(rank, int) and rank > 0 for rank in ranks.values()):
        raise AdapterRejectedError(f"{CONFIG}: rank_pattern must hold positive integers, found {ranks!r:.80}")
    return config


def _tensors(folder: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    """(module, side) → shape, of each matrix."""
    try:
        shapes = _shapes(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterRejectedError(f"{WEIGHTS} is corrupt or missing: {error}") from error
    sides: dict[tuple[str, str], tuple[int, ...]] = {}
    for name, shape in shapes.items():
        matched = TENSOR.fullmatch(name)
        if matched is None or len(shape) != 2:
            raise AdapterRejectedError(f"{WEIGHTS} has {name[:128]!r}, which is no matrix of LoRA")
        sides[matched["module"], matched["side"]] = shape
    if not sides:
        raise AdapterRejectedError(f"{WEIGHTS} has no weights")
    for module in {module for module, _ in sides}:
        first, second = sides.get((module, "A")), sides.get((module, "B"))
        if first is None or second is None or first[0] != second[1]:
            raise AdapterRejectedError(f"the two matrices of {module} do not fit each other")
    return sides


def _check_module(module: str, sides: Mapping[tuple[str, str], tuple[int, ...]], base: Base) -> None:
    if not base.modules:
        return
    name = _from_layers(module)
    if name not in base.modules:
        raise AdapterRejectedError(f"it was made for another model: {base.source} has no module {module}")
    expected = base.modules[name]
    found = (sides[module, "B"][0], sides[module, "A"][1])
    if expected is not None and expected != found:
        raise AdapterRejectedError(
            f"it was made for another model: {module} is {found[0]} × {found[1]}, "
            f"in {base.source} {' × '.join(map(str, expected))}"
        )


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Name of each tensor → its shape; the library checks the header against the file's length."""
    with safe_open(file, framework="np") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _from_layers(module: str) -> str:
    """A module's name without what precedes its layers: saved models differ in it."""
    matched = FROM_LAYERS.search(module)
    return module if matched is None else matched[1]


def _last(source: str) -> str:
    """What a model is called, without its owner or folder."""
    return source.rstrip("/").rpartition("/")[2].casefold()


def is_hub_id(source: str) -> bool:
    """Whether a source that is no folder may be a repository of the hub."""
    return source.count("/") == 1 and not source.startswith((".", "/"))
