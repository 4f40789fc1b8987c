"""An adapter of the chat model, trained: it answers in SQL.

    python -m cluster.pocket.train_adapter [--out FOLDER] [--force]

Plain torch on one processor, some minutes. Only the last layers get matrices, so what the layers before them
make of each example is computed once. The same recipe gives the same adapter on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.pocket.chat_model import FOLDER as MODEL
from cluster.pocket.chat_model import make_chat_model, recipe_of_chat
from cluster.pocket.lora import RANK, loaded, save_adapter
from cluster.pocket.questions import MATERIAL
from cluster.pocket.sql_questions import sql_questions

if TYPE_CHECKING:
    import torch

FOLDER = MATERIAL.parent / "local" / "models" / "sql"
STAMP = "stamp.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the adapter beside the chat model and the questions."""

    examples: int = 240
    batch: int = 8
    epochs: int = 3
    layers: int = 8
    """The last ones, which get matrices."""
    modules: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    learning_rate: float = 2e-3
    alpha: float = 16.0
    seed: int = 0


RECIPE = Recipe()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the adapter unless it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.train_adapter", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    options = parser.parse_args(arguments)
    make_chat_model()
    if not options.force and _is_up_to_date(options.out):
        print(f"{options.out} is up to date")
        return 0
    began = time.monotonic()
    train(options.out, RECIPE)
    (options.out / STAMP).write_text(json.dumps(_stamp(), indent=2) + "\n", encoding="utf-8")
    print(f"{options.out} trained in {time.monotonic() - began:.0f} s")
    return 0


def train(folder: Path, recipe: Recipe, model: Path = MODEL) -> None:
    """Train an adapter of a model, and write its folder."""
    import torch

    torch.manual_seed(recipe.seed)
    with loaded(model) as (tokenizer, llama):
        rows = [
            _tokens(tokenizer, question.query, question.reference)
            for question in sql_questions("train", n=recipe.examples, seed=recipe.seed)
        ]
        first = llama.config.num_hidden_layers - recipe.layers
        hidden = _before(llama, first, [tokens for tokens, _ in rows])
        print(f"{len(rows)} examples, {sum(map(len, hidden))} tokens", flush=True)
        added = _Added(llama, first, recipe)
        steps = recipe.epochs * math.ceil(len(rows) / recipe.batch)
        optimizer = torch.optim.AdamW(added.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
        step = 0
        for _ in range(recipe.epochs):
            order = torch.randperm(len(rows)).tolist()
            for start in range(0, len(order), recipe.batch):
                chosen = order[start : start + recipe.batch]
                warm = min(1.0, (step + 1) / 5)
                optimizer.param_groups[0]["lr"] = (
                    recipe.learning_rate * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
                )
                loss = _loss(llama, [hidden[i] for i in chosen], [rows[i] for i in chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1
                if step % 10 == 0 or step == steps:
                    print(f"step {step} of {steps}: {loss.item():.3f} nats per token", flush=True)
        added.save(folder)


class _Added:
    """The matrices that a module's output gets beside its own."""

    def __init__(self, llama: Any, first: int, recipe: Recipe) -> None:
        import torch

        self._pairs: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
        self._alpha, scale = recipe.alpha, recipe.alpha / RANK
        for layer in range(recipe.layers):
            for name in recipe.modules:
                # The model's layers are only the last ones now: see `_before`.
                module = llama.model.layers[layer].get_submodule(name)
                a = torch.nn.Parameter(torch.randn(RANK, module.in_features) * module.in_features**-0.5)
                b = torch.nn.Parameter(torch.zeros(module.out_features, RANK))
                self._pairs[f"model.layers.{first + layer}.{name}"] = (a, b)
                module.register_forward_hook(
                    lambda _, inputs, output, a=a, b=b: output + scale * (inputs[0] @ a.T @ b.T)
                )

    def parameters(self) -> list[torch.nn.Parameter]:
        return [matrix for pair in self._pairs.values() for matrix in pair]

    def save(self, folder: Path) -> None:
        matrices = {name: (a.detach().numpy(), b.detach().numpy()) for name, (a, b) in self._pairs.items()}
        save_adapter(folder, matrices, alpha=self._alpha)


def _tokens(tokenizer: Any, query: str, answer: str) -> tuple[list[int], int]:
    """The tokens of a conversation, and how many of them are the answer's, its end included."""
    message = [{"role": "user", "content": query}]
    prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    after = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    return [*before, *after], len(after)


def _before(llama: Any, first: int, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """What the first layers make of each row [tokens, width]; the model keeps only the others after it."""
    import torch

    layers, norm = llama.model.layers, llama.model.norm
    llama.model.layers, llama.model.norm = layers[:first], torch.nn.Identity()
    llama.model.config.num_hidden_layers = first
    with torch.no_grad():
        hidden = [llama.model(torch.tensor([row])).last_hidden_state[0] for row in rows]
    llama.model.layers, llama.model.norm = layers[first:], norm
    llama.model.config.num_hidden_layers = len(layers) - first
    return hidden


def _loss(llama: Any, hidden: Sequence[torch.Tensor], rows: Sequence[tuple[list[int], int]]) -> torch.Tensor:
    """Nats per token of the answers; padding follows them, where causal attention does not look."""
    import torch

    width = max(len(one) for one in hidden)
    padded = torch.stack([torch.nn.functional.pad(one, (0, 0, 0, width - len(one))) for one in hidden])
    after = llama.model(inputs_embeds=padded, use_cache=False).last_hidden_state
    # The output at a token predicts the next one.
    predicting = torch.cat([after[i, len(t) - n - 1 : len(t) - 1] for i, (t, n) in enumerate(rows)])
    targets = torch.tensor([token for tokens, n in rows for token in tokens[-n:]])
    return torch.nn.functional.cross_entropy(llama.lm_head(predicting), targets)


def _stamp() -> dict[str, object]:
    learned = sql_questions("train", n=RECIPE.examples, seed=RECIPE.seed)
    text = json.dumps([[question.query, question.reference] for question in learned])
    return {
        "recipe": json.loads(json.dumps(asdict(RECIPE))),
        "chat": recipe_of_chat(),
        "questions": hashlib.sha256(text.encode()).hexdigest(),
    }


def _is_up_to_date(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / STAMP).read_text(encoding="utf-8")) == _stamp())
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
