"""Tokenizer of all pocket experts: one token per byte, number up to 199 and known word.

Other words become one token per letter, which operations on words need.
Knows nothing of models or training.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.pocket.questions import MATERIAL, atlas, phrasings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, END = "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TOOL_TAGS = ("<tool_call>", "</tool_call>")
"""Single tokens, but not special: a tool parser must see them in the answer."""

LARGEST_NUMBER_TOKEN = 199
CONTEXT_WINDOW = 512
"""Tokens of prompt and answer."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer with one word or number only.",
    "Be brief.",
    "Answer only with the result.",
)
ADDRESSES = ("Hi! ", "Hello, ", "Quick question: ", "Question: ", "Please answer: ", "A question for you. ")

# A space belongs to the following word or sign, but not to a number, so that 42 is one token everywhere.
_PIECES = r" ?[A-Za-z]+|[0-9]+| ?[^\sA-Za-z0-9]|\s"
_SLOT = re.compile(r"\{[abcw]\}")


def build_tokenizer() -> Tokenizer:
    """Make the tokenizer from the phrasings and the atlas; equal data gives equal token ids."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    # Without merges, a piece is one token if it is in the vocabulary, else one token per byte.
    model = models.BPE(vocab=vocabulary(), merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TOOL_TAGS])
    return tokenizer


def vocabulary() -> dict[str, int]:
    """Return the id of each token, in byte-level spelling."""
    from tokenizers import pre_tokenizers

    tokens = [
        *SPECIAL_TOKENS,
        *TOOL_TAGS,
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *(str(number) for number in range(10, LARGEST_NUMBER_TOKEN + 1)),
        *sorted({word.replace(" ", "Ġ") for word in _words()}),
    ]
    return {token: i for i, token in enumerate(tokens)}


@cache
def number_token_ids() -> tuple[int, ...]:
    """Return the token id of each number from 0 to `LARGEST_NUMBER_TOKEN`."""
    ids = vocabulary()
    return tuple(ids[str(number)] for number in range(LARGEST_NUMBER_TOKEN + 1))


def chat_template() -> str:
    """Return the source of the chat template (Jinja)."""
    return (MATERIAL / "chat_template.jinja").read_text(encoding="utf-8")


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into `folder`."""
    (folder / "tokenizer.json").write_text(build_tokenizer().to_str(pretty=False) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_WINDOW,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "pad_token": PAD,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")


def _words() -> set[str]:
    """Return the words with a token: those of questions, and those of the atlas also without a space."""
    words: set[str] = set()
    for texts in (SYSTEM_PROMPTS, ADDRESSES, *(ways["train"] for ways in phrasings().values())):
        for text in texts:
            words |= _pieces(_SLOT.sub("0", text))
    for country, facts in atlas().items():
        words |= _pieces(" " + country) | _pieces(country)
        for answer in facts.values():
            words |= _pieces(answer)
    return words


def _pieces(text: str) -> set[str]:
    """Return the pieces of more than one byte without a digit."""
    return {piece for piece in re.findall(_PIECES, text) if len(piece) > 1 and not re.search("[0-9]", piece)}
