"""The facts of a model that its name, its `config.json` and its price hold.

Names of one model differ between sources (`Meta-Llama-3_1-70B-Instruct`, `llama-3.1-70b`): a model is the
set of its name's words, without words that say nothing about it. Knows nothing of outcomes.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from router.errors import InputError
from router.priors.shape import size_of

REFERENCE_YEAR = 2024.5
"""Dates are years since then."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NOISE = _words(
    "meta instruct inst it chat hf api latest preview exp gguf bf16 fp16 f16 prompt c4ai ai21 v01 v0.1 base "
    "effort auto default quality diff whole udiff prev alibaba token tokens nothinking experimental basic"
)
"""Words of names that do not separate one model from another."""
LEVELS = _words("xhigh high medium low minimal none no non")
"""Amounts of reasoning."""
THINKING = _words("thinking think reasoning reasoner highthinking")
THINKS = _words("r1 qwq o1 o3 o4")
"""Models that always reason before they answer."""
LOWER, UPPER = _words("mini nano flash haiku lite small micro tiny"), _words("opus pro max large ultra plus")
"""Words for the smaller and the larger models of a family."""
BITS = {
    **dict.fromkeys(_words("fp8 q8 q8.0 int8 8bit w8a8 w8a16"), 8),
    **dict.fromkeys(_words("awq gptq int4 4bit q4 q4.0 q4km mxfp4 nvfp4 bnb w4a16"), 4),
}
"""Word → bits of each weight."""
FOCUS = {"coder": "code", "code": "code", "codestral": "code", "starcoder2": "code", "devstral": "code"} | {
    "mathstral": "mathematics",
    "math": "mathematics",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SIZE = re.compile(r"^(?:(\d+)x)?(\d+(?:\.\d+)?)b$")
_ACTIVE = re.compile(r"^a(\d+(?:\.\d+)?)b$")
_EXPERTS = re.compile(r"^\d+e$")
_WORD_AND_VERSION = re.compile(r"^([a-z]{2,})(\d+(?:\.\d+)?)$")
_VERSION = re.compile(r"^v?\d+(?:\.\d+)*$")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one model; `None` where it is not known."""

    model: frozenset[str] | None = None
    """The words of its name; `None` where the name says nothing."""
    line: frozenset[str] | None = None
    """The same without dates: releases of one model."""
    series: str | None = None
    """Family and version, such as `qwen 2.5`."""
    family: str | None = None
    total_b: float | None = None
    """Parameters, in billions."""
    active_b: float | None = None
    """Parameters that are read for each token, where those are fewer."""
    year: float | None = None
    """Years since the middle of 2024, of its release or of the first source that lists it."""
    thinking: bool = False
    """Whether it reasons before it answers."""
    tier: int = 0
    """-1 for the smaller models of a family, 1 for the larger, where the size is not known."""
    focus: str | None = None
    """The kind of task that it was made for."""
    bits: int = 16
    """Of each weight."""
    output_usd: float | None = None
    """Price of a million completion tokens."""

    @property
    def known(self) -> bool:
        """Whether anything but the price is known."""
        return not (self.family is None and self.total_b is None and self.year is None)

    def nameless(self) -> "Facts":
        """The same facts without the name: size, family, generation and price remain."""
        return replace(self, model=None, line=None)


def facts_of(name: str, config: Mapping[str, Any] | None = None, *, output_usd: float | None = None) -> Facts:
    """The facts of a model.

    Args:
        name: a hub id, a folder, or an API's name.
        config: its `config.json`, where there is one.
        output_usd: price of a million completion tokens.
    """
    text, year = _without_dates(_words_apart(name))
    words = [_plain(word) for word in re.split(r"[\s\-_:,/@]+", text) if word]
    words = [part for word in words for part in _split(word)]
    bits = min((BITS[word] for word in words if word in BITS), default=16)
    thinking = bool(THINKS & set(words)) or (bool(THINKING & set(words)) and not {"no", "non"} & set(words))
    budget = {word for word in words if re.fullmatch(r"\d+k", word)} if THINKING & set(words) else set()
    kept = [w for w in words if w not in NOISE | LEVELS | THINKING | BITS.keys() | budget and not _dated(w)]
    if "llama" in kept or "qwen" in kept:
        kept = [word for word in kept if word != "turbo"]
    if "mistral" in kept and "large" in kept:
        kept = [word for word in kept if word != "2"]
    total, active = _size(frozenset(kept))
    if any(_EXPERTS.match(word) for word in kept):  # some sources leave the shape out
        kept = [word for word in kept if not _EXPERTS.match(word) and not _SIZE.match(word)]
    family = next((word for word in kept if word.isalpha() and len(word) > 1), kept[0] if kept else None)
    version = next((word for word in kept if _VERSION.match(word)), "")
    line = frozenset(kept) | ({"thinking"} if thinking else set())
    dates = frozenset(word for word in words if _dated(word))
    levels = frozenset(word for word in words if word in LEVELS - {"no", "non", "none"})
    found = Facts(
        model=line | dates | levels | ({f"{bits} bits"} if bits < 16 else set()),
        line=line,
        series=f"{family} {version}" if family and version else family,
        family=family,
        total_b=total,
        active_b=active,
        year=year if year is not None else _short_year(words),
        thinking=thinking,
        tier=0 if total else bool(UPPER & set(kept)) - bool(LOWER & set(kept)),
        focus=next((FOCUS[word] for word in kept if word in FOCUS), None),
        bits=bits,
        output_usd=output_usd,
    )
    return found if config is None else _with_config(found, config)


def _words_apart(name: str) -> str:
    """The name in lower case without its owner, its host and its brackets."""
    text = name.strip().rstrip("/").rsplit("/", 1)[-1].lower()
    text = re.sub(r"@.*$", "", text)
    text = re.sub(r"[()\[\]]", " ", text).replace("q4_k_m", "q4km")
    text = re.sub(r"(?<=\d)_(?=\d)", ".", text)
    text = re.sub(r"\b(claude|gpt)-(\d)-(\d)(?=-|$)", r"\1-\2.\3", text)
    return re.sub(r"\bqwen-(\d)", r"qwen\1", text)


def _without_dates(text: str) -> tuple[str, float | None]:
    """The name with every date as one word `d…`, and the year of the latest one."""
    years: list[float] = []

    def full(found: re.Match[str]) -> str:
        years.append(_year(int(found[1]), int(found[2])))
        return f" d{found[1]}{found[2]}{found[3]} "

    text = re.sub(r"(?<!\d)(20[2-9]\d)-?([01]\d)-?([0-3]\d)(?!\d)", full, text)

    def named(found: re.Match[str]) -> str:
        years.append(_year(int(found[2]), MONTHS.index(found[1]) + 1))
        return f" d{found[2]}{MONTHS.index(found[1]) + 1:02} "

    text = re.sub(rf"\b({'|'.join(MONTHS)})[a-z]*\.? (20[2-9]\d)", named, text)
    text = re.sub(r"\b(20[2-9]\d)(?:0[1-9]|1[0-2])(?!\d)", lambda found: f" d{found[0]} ", text)
    text = re.sub(r"(?<![\d.])([01]\d)-(\d\d)(?![\d.])", r" d\1\2 ", text)
    return text, max(years, default=None)


def _year(year: int, month: int) -> float:
    return round(year + (min(max(month, 1), 12) - 0.5) / 12 - REFERENCE_YEAR, 2)


def _short_year(words: list[str]) -> float | None:
    """From a word such as 2407: a year and a month."""
    for word in words:
        if re.fullmatch(r"2[3-9](0[1-9]|1[0-2])", word):
            return _year(2000 + int(word[:2]), int(word[2:]))
    return None


def _dated(word: str) -> bool:
    return bool(re.fullmatch(r"d\d{4,8}|\d{4}|00\d", word))


def _plain(word: str) -> str:
    return word.strip(".").replace("β", "beta")


def _split(word: str) -> list[str]:
    """`llama3.1` as `llama` and `3.1`; sizes and `r1`, `v3`, `4o` stay whole."""
    found = _WORD_AND_VERSION.match(word)
    if found is None or re.fullmatch(r"d\d{4,8}", word) or word in BITS.keys() | NOISE:
        return [word]
    return [found[1], found[2]]


def _size(words: frozenset[str]) -> tuple[float | None, float | None]:
    """(all, active) parameters in billions: from the table where it has them, else from the name."""
    for needed, total, active in _table():
        if needed <= words:
            return total, active
    total = active = None
    sparse = any(_EXPERTS.match(word) for word in words)
    for word in sorted(words):
        if found := _ACTIVE.match(word):
            active = float(found[1])
        elif found := _SIZE.match(word):
            size = float(found[1] or 1) * float(found[2])
            if sparse:
                active = size
            else:
                total = max(total or 0.0, size)
    return total, active


@cache
def _table() -> tuple[tuple[frozenset[str], float | None, float | None], ...]:
    """Rows of `sizes.csv`, those with most words first."""
    text = resources.files("router.priors").joinpath("data/sizes.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        if not row["address"].startswith("https://") or not row["read"]:
            raise InputError(f"sizes.csv: {row['model']} needs the address of its source and the date")
    read = [
        (frozenset(row["model"].split()), _number(row["total_b"]), _number(row["active_b"])) for row in rows
    ]
    return tuple(sorted(read, key=lambda row: -len(row[0])))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _with_config(facts: Facts, config: Mapping[str, Any]) -> Facts:
    """The facts with what a `config.json` says of family, size and quantisation."""
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    total, active = size_of(inner)
    kind = str(config.get("model_type") or "")
    by_type = facts_of(kind) if kind else Facts()
    quantised = config.get("quantization_config")
    bits = facts.bits
    if isinstance(quantised, Mapping):
        method = str(quantised.get("quant_method") or "").lower()
        bits = int(
            quantised.get("bits") or quantised.get("num_bits") or BITS.get(method, 8 if "8" in method else 4)
        )
    return replace(
        facts,
        total_b=facts.total_b or total,
        active_b=facts.active_b or active,
        family=facts.family or by_type.family,
        series=facts.series or by_type.series,
        bits=bits,
        tier=0 if facts.total_b or total else facts.tier,
    )
