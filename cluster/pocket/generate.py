"""Greedy answers of an expert in this process, and their accuracy. No server, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.pocket.questions import KINDS, Question
from cluster.pocket.recipe import conversation
from cluster.pocket.tokenizer import END, PAD, build_tokenizer, vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

MAX_ANSWER_TOKENS = 16
_BATCH = 200


def load_expert(folder: Path) -> LlamaForCausalLM:
    """Load an expert's weights, in single precision.

    Raises:
        OSError: `folder` contains no model.
    """
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def greedy_answers(model: LlamaForCausalLM, queries: Sequence[str]) -> list[str]:
    """Generate the answer to each query, always the most likely token, up to `MAX_ANSWER_TOKENS`."""
    import torch

    tokenizer = build_tokenizer()
    ids = vocabulary()
    tokenizer.enable_padding(direction="left", pad_id=ids[PAD], pad_token=PAD)
    answers: list[str] = []
    for start in range(0, len(queries), _BATCH):
        prompts = tokenizer.encode_batch([conversation(query) for query in queries[start : start + _BATCH]])
        tokens = torch.tensor([prompt.ids for prompt in prompts])
        mask = torch.tensor([prompt.attention_mask for prompt in prompts])
        with torch.inference_mode():
            output = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=MAX_ANSWER_TOKENS,
                do_sample=False,
                eos_token_id=ids[END],
                pad_token_id=ids[PAD],
            )
        answers += tokenizer.decode_batch(output[:, tokens.shape[1] :].tolist(), skip_special_tokens=True)
    return answers


def accuracy_by_kind(model: LlamaForCausalLM, questions: Sequence[Question]) -> dict[str, float]:
    """Return the fraction of exactly correct answers for each kind of question and each task."""
    answers = greedy_answers(model, [question.query for question in questions])
    groups: dict[str, list[bool]] = {}
    for question, answer in zip(questions, answers, strict=True):
        for group in (question.task, question.kind):
            groups.setdefault(group, []).append(answer == question.reference)
    order = [name for task, kinds in KINDS.items() for name in (task, *kinds)]
    return {name: sum(groups[name]) / len(groups[name]) for name in order if name in groups}
