"""The decision log as the input of commands: folders, the reward, the encoders of texts in it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from router.cli.inputs import embed, encoder_of
from router.core import FloatArray
from router.encoders import EncoderSpec
from router.errors import InputError


def add_reward(command: argparse.ArgumentParser) -> None:
    """The argument `--reward`."""
    command.add_argument(
        "--reward",
        choices=("judged", "ratings"),
        help="the judged random sample, or what clients chose to rate; default: judged, without any ratings",
    )


def distinct(folders: Sequence[Path]) -> list[Path]:
    """Folders without repetition: a record that is read twice would count twice.

    Raises:
        InputError: a folder is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return list({folder.resolve(): folder for folder in folders}.values())


class Encoders:
    """Encoders by their specification, each loaded once and only when a text needs it."""

    def __init__(self) -> None:
        self._known: dict[EncoderSpec, dict[tuple[str, ...], FloatArray]] = {}

    def embed(self, spec: EncoderSpec, texts: Sequence[str]) -> FloatArray:
        known = self._known.setdefault(spec, {})
        key = tuple(texts)
        if key not in known:
            known[key] = embed(encoder_of(spec), list(texts))
        return known[key]
