"""Join the metrics of many replicas into one text for Prometheus, each sample marked with its replica.

Pure: text in, text out. Knows the text format; not what is measured, nor how the texts were had.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

ENGINE_FAMILIES = b"vllm:"
"""How an engine's own families begin; what its process and HTTP library add is left out."""


@dataclass(slots=True)
class _Family:
    head: list[bytes] = field(default_factory=list)
    samples: list[bytes] = field(default_factory=list)


def joined(texts: Iterable[tuple[str, bytes]]) -> bytes:
    """One text of (replica, its text) pairs: each family once, the label `replica` on each sample."""
    families: dict[bytes, _Family] = {}
    for replica, text in texts:
        label = b'replica="' + replica.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
        name, own = b"", False
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                found = line.split(b" ", 3)[2]
                if found != name:
                    name, own = found, found not in families
                    families.setdefault(name, _Family())
                if own:
                    families[name].head.append(line)
            elif line and not line.startswith(b"#"):
                sample = _name_of(line)
                family = name if name and sample.startswith(name) else sample
                families.setdefault(family, _Family()).samples.append(_labelled(line, sample, label))
    lines = [line for family in families.values() for line in (*family.head, *family.samples)]
    return b"\n".join(lines) + b"\n"


def engine_only(text: bytes) -> bytes:
    """The families of the engine itself."""
    kept = [line for line in text.splitlines() if _family_of(line).startswith(ENGINE_FAMILIES)]
    return b"\n".join(kept) + b"\n"


def _family_of(line: bytes) -> bytes:
    if line.startswith((b"# HELP ", b"# TYPE ")):
        return line.split(b" ", 3)[2]
    return _name_of(line)


def _name_of(line: bytes) -> bytes:
    """A sample's name: the text before its labels or its value."""
    return line.split(b"{", 1)[0].split(b" ", 1)[0]


def _labelled(line: bytes, name: bytes, label: bytes) -> bytes:
    rest = line[len(name) :]
    if rest.startswith(b"{}"):
        return name + b"{" + label + b"}" + rest[2:]
    if rest.startswith(b"{"):
        return name + b"{" + label + b"," + rest[1:]
    return name + b"{" + label + b"}" + rest
