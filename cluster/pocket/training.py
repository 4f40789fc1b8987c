"""Training of one pocket expert, step by step, which can stop anywhere and resume.

Plain torch on the CPU. The state of a run is JSON and safetensors; a run that was interrupted ends with
the weights of one that was not. Knows nothing of the experts' final folders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.pocket.recipe import HEAD_DIM, Recipe, recipe_hash, training_batch
from cluster.pocket.tokenizer import CONTEXT_WINDOW, END, PAD, build_tokenizer, number_token_ids, vocabulary

_NUMBER_PERIODS = (2, 4, 5, 10, 20, 25, 50, 100, 200, 400)
_IGNORED = -100  # label of a position without loss


def config_of(recipe: Recipe, *, layers: int) -> LlamaConfig:
    """Return the expert's shape in the engine's format."""
    ids = vocabulary()
    return LlamaConfig(
        vocab_size=len(ids),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.ffn,
        num_hidden_layers=layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT_WINDOW,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
        attn_implementation="sdpa",
    )


class Training:
    """One run of one recipe: model, optimizers and the number of steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.step = 0
        self._tokenizer = build_tokenizer()
        self._end, self._pad = vocabulary()[END], vocabulary()[PAD]
        self._build(_initial_model(recipe))

    def _build(self, model: LlamaForCausalLM) -> None:
        self.model = model.train()
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        recipe = self.recipe
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=recipe.muon_learning_rate, weight_decay=0.01),
            torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._peaks = (recipe.muon_learning_rate, recipe.learning_rate)

    def advance(self) -> float:
        """Take one step and return its loss (nats per answer token)."""
        if self.step == self.recipe.grow_at and self.step:
            self._build(grown(self.model, self.recipe))
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _schedule(self.step, self.recipe)
        tokens, labels = self._batch()
        loss = _answer_loss(self.model, tokens, labels)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        return float(loss.item())

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        examples = training_batch(self.recipe, self.step)
        prompts = self._tokenizer.encode_batch_fast([e.prompt for e in examples])
        answers = self._tokenizer.encode_batch_fast([e.answer for e in examples])
        rows = [(p.ids, [*a.ids, self._end]) for p, a in zip(prompts, answers, strict=True)]
        width = max(len(p) + len(a) for p, a in rows)
        tokens = torch.full((len(rows), width), self._pad)
        labels = torch.full((len(rows), width), _IGNORED)
        for i, (prompt, answer) in enumerate(rows):
            both = torch.tensor(prompt + answer)
            tokens[i, : len(both)] = both
            labels[i, len(prompt) : len(both)] = both[len(prompt) :]
        return tokens, labels

    def save(self, folder: Path) -> None:
        """Write the state of the run; `state.json` is last, so that its existence shows a complete state."""
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / "state.json"
        state_file.unlink(missing_ok=True)
        tensors = {f"model.{n}": p.detach().clone() for n, p in self.model.named_parameters()}
        for i, optimizer in enumerate(self._optimizers):
            for j, entry in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{key}": value.clone() for key, value in entry.items()}
        save_file(tensors, folder / "state.safetensors")
        state_file.write_text(
            json.dumps({"recipe": recipe_hash(self.recipe), "step": self.step}), encoding="utf-8"
        )

    @classmethod
    def resume(cls, recipe: Recipe, folder: Path) -> Training:
        """Resume from `folder` if it holds a run of exactly this recipe, else start from the beginning."""
        run = cls(recipe)
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return run
        if state["recipe"] != recipe_hash(recipe):
            return run
        tensors = load_file(folder / "state.safetensors")
        run.step = int(state["step"])
        run._build(LlamaForCausalLM(config_of(recipe, layers=recipe.layers_at(run.step - 1))))
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        run.model.load_state_dict(weights, strict=False)
        for i, optimizer in enumerate(run._optimizers):
            entries: dict[int, dict[str, Any]] = {}
            for name, tensor in tensors.items():
                if name.startswith(f"optimizer.{i}."):
                    _, _, j, key = name.split(".")
                    entries.setdefault(int(j), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        return run


def train(
    recipe: Recipe, folder: Path, *, save_every: int, on_step: Callable[[int, float], None]
) -> LlamaForCausalLM:
    """Train to the end of `recipe`, from the state in `folder`.

    Args:
        recipe: the expert's recipe.
        folder: state of the run.
        save_every: steps between two states.
        on_step: called with the number of steps and the loss.
    """
    run = Training.resume(recipe, folder)
    try:
        while run.step < recipe.steps:
            loss = run.advance()
            on_step(run.step, loss)
            if run.step % save_every == 0:
                run.save(folder)
    except KeyboardInterrupt:
        run.save(folder)
        raise
    return run.model.eval()


def grown(model: LlamaForCausalLM, recipe: Recipe) -> LlamaForCausalLM:
    """Return the same function with `grow_by` times the layers; the new ones initially add nothing."""
    torch.manual_seed(recipe.seed + 1)
    deep = LlamaForCausalLM(config_of(recipe, layers=recipe.layers))
    weights = dict(deep.state_dict())
    for name, tensor in model.state_dict().items():
        weights[_name_when_grown(name, recipe.grow_by)] = tensor
    for name, tensor in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and int(name.split(".")[2]) % recipe.grow_by:
            weights[name] = torch.zeros_like(tensor)
    deep.load_state_dict(weights)
    return deep


def _name_when_grown(name: str, grow_by: int) -> str:
    head, dot, rest = name.removeprefix("model.layers.").partition(".")
    return f"model.layers.{int(head) * grow_by}{dot}{rest}" if name.startswith("model.layers.") else name


def _initial_model(recipe: Recipe) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config_of(recipe, layers=recipe.layers_at(0)))
    _write_numbers(model.get_input_embeddings().weight.data)
    return model


def _write_numbers(embedding: torch.Tensor) -> None:
    """Initialise each number's embedding with waves of several periods.

    On waves a sum is a rotation, so that addition takes minutes to learn instead of hours.
    """
    numbers = torch.arange(len(number_token_ids()), dtype=torch.float32)
    angles = 2 * math.pi * numbers[:, None] / torch.tensor(_NUMBER_PERIODS, dtype=torch.float32)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)  # [200, 2 * periods]
    directions = torch.linalg.qr(torch.randn(embedding.shape[1], waves.shape[1])).Q.T
    scale = embedding.norm(dim=1).mean() / waves.norm(dim=1).mean()
    embedding[list(number_token_ids())] = scale * waves @ directions


def _answer_loss(model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    scored = targets != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[scored]), targets[scored])


def _schedule(step: int, recipe: Recipe) -> float:
    """Return the fraction of the peak learning rate: a warm-up, then linear decay to 0."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    return rise * (recipe.steps - step) / recipe.steps
