"""Small outcomes made from a seed, with a signal that a router can find."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.data.dataset import Dataset, to_dataset
from router.experts import CandidatePool, ExpertProfile, Price

POOL = CandidatePool(
    [
        ExpertProfile("sums", Price(0.05, 0.1), 512),
        ExpertProfile("words", Price(0.05, 0.1), 512),
        ExpertProfile("large", Price(0.5, 1.0), 512),
    ]
)


def rows(n: int = 200, *, seed: int = 0) -> list[dict[str, Any]]:
    """Outcomes of three experts: one good at sums, one at words, one fair at both and expensive."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        task = rng.choice(["sums", "words"])
        query = (
            f"What is {rng.randint(1, 99)} plus {rng.randint(1, 99)}?"
            if task == "sums"
            else f"Spell the word {''.join(rng.choices('abcdefgh', k=6))} backwards"
        )
        for expert in POOL.names:
            right = {"large": 0.7}.get(expert, 0.95 if expert == task else 0.05)
            made.append(
                {
                    "query_id": f"q{number}",
                    "query": query,
                    "expert": expert,
                    "quality": float(rng.random() < right),
                    "prompt_tokens": 12,
                    "completion_tokens": rng.randint(2, 9),
                    "task": task,
                }
            )
    return made


def dataset(n: int = 200, *, seed: int = 0) -> Dataset:
    return to_dataset(rows(n, seed=seed), pool=POOL)


def embeddings(texts: tuple[str, ...], dimension: int = 16) -> FloatArray:
    """Unit vectors in which the two kinds of query are far apart; no encoder needed."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, dimension))
    made = np.stack(
        [
            centres[int(text.startswith("Spell"))]
            + 0.3 * np.random.default_rng(abs(hash_of(text))).normal(size=dimension)
            for text in texts
        ]
    )
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def hash_of(text: str) -> int:
    from zlib import crc32

    return crc32(text.encode("utf-8", "replace"))


def training(n: int = 200, *, seed: int = 0) -> TrainingSet:
    data = dataset(n, seed=seed)
    batch = QueryBatch(data.texts, embeddings(data.texts))
    return TrainingSet(batch, data.quality, data.costs_usd, data.tasks)


def tiny_encoder(folder: Path) -> Path:
    """A BERT of two narrow layers with random weights and a small vocabulary, as an encoder's folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789?+"]
    vocabulary = [*signs, *(f"##{sign}" for sign in signs[4:])]
    tokenizer = Tokenizer(models.WordPiece({v: i for i, v in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}), encoding="utf-8")
    return folder
