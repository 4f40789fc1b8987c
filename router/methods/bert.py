"""The encoder, fine-tuned end to end with a head over the pool: the TO-Router paper's BERT router.

Devlin et al. (NAACL 2019), with the paper's soft label or a probability for each expert (arXiv 2408.12320).
Needs torch and transformers to learn and to score, and reads the queries' texts, not their embeddings;
`auto` leaves it out. Its weights are kept in half precision: 45 MB for the default encoder.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.encoders.source import EncoderSource, find
from router.encoders.tokens import TokenBatch, Tokeniser
from router.errors import EncoderError, MethodError, WeightsError
from router.methods.descent import MOST_SCALE, Head, held_out, scale_of
from router.methods.shrink import global_means

BATCH, SCORED = 32, 32
WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; it falls to 0 over the others."""
HEAD_RATE = 20.0
"""The head's learning rate, as a multiple of the encoder's: it starts from nothing."""
OWN = ("head.weight", "head.bias", "means", "scale")


class BertRouter:
    """A fine-tuned BERT with a linear head over the pool.

    Args:
        encoder: `default`, a folder or a hub id: the BERT to start from, and its tokeniser.
        head: `soft_label` (the paper's) or `probability`.
        temperature: of the soft label; it multiplies the qualities.
        epochs: maximum number; the best one on held-out queries is kept.
        rate: the encoder's learning rate.
        max_tokens: tokens of a query that are read.
    """

    name: ClassVar[str] = "bert"

    def __init__(
        self,
        *,
        encoder: str = "default",
        head: str = "soft_label",
        temperature: float = 10.0,
        epochs: int = 3,
        rate: float = 3e-5,
        max_tokens: int = 128,
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.temperature = temperature
        self.epochs = epochs
        self.rate = rate
        self.max_tokens = max_tokens

    @property
    def params(self) -> dict[str, Any]:
        names = ("encoder", "head", "temperature", "epochs", "rate", "max_tokens")
        return {name: getattr(self, name) for name in names}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.epochs < 1 or self.max_tokens < 3:
            raise MethodError(
                f"epochs must be at least 1 and max_tokens at least 3, found {self.epochs}, {self.max_tokens}"
            )
        import torch

        head, means = Head(self.head, self.temperature), global_means(training.quality)
        source = find(self.encoder)
        if source.spec.kind != "transformer":
            raise MethodError(f"encoder {source.spec.id!r} is static: `bert` fine-tunes a transformer")
        inside, outside = held_out(len(training), seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _Model(source, head.first_bias(means), self.max_tokens)
            kept = model.learn(
                head,
                training.queries.texts,
                training.quality,
                inside,
                outside,
                epochs=self.epochs,
                rate=self.rate,
                seed=seed,
            )
        model.set_weights(kept)
        logits = model.logits([training.queries.texts[int(row)] for row in outside])
        most = 1.0 if self.head == "probability" else MOST_SCALE
        scale = scale_of(head.deviations(logits, means), training.quality[outside], means, most=most)
        self.weights_ = {name: value.astype(np.float16) for name, value in kept.items()}
        self.means_, self.scale_ = means, np.array([scale])
        model.set_weights(self.weights_)
        self._model = model
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        logits = self._model.logits(list(queries.texts))
        deviations = Head(self.head, self.temperature).deviations(logits, self.means_)
        scores: FloatArray = np.clip(self.means_ + self.scale_ * deviations, 0.0, 1.0)
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {**self.weights_, "means": self.means_, "scale": self.scale_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        if missing := [name for name in OWN if name not in arrays]:
            raise WeightsError(f"the bert method lacks the array {missing[0]!r}")
        restored.means_, restored.scale_ = arrays["means"], arrays["scale"]
        restored.weights_ = {n: value for n, value in arrays.items() if n not in {"means", "scale"}}
        model = _Model(find(restored.encoder), arrays["head.bias"], restored.max_tokens)
        model.set_weights(restored.weights_)
        restored._model = model
        return restored


class _Model:
    """A BERT and a linear head on the mean of its last states."""

    def __init__(self, source: EncoderSource, bias: FloatArray, max_tokens: int) -> None:
        try:
            import torch
            from transformers import AutoModel
        except ImportError as error:
            raise EncoderError(
                "the method bert needs torch and transformers: install to-router[train]"
            ) from error
        self._torch = torch
        most = min(max_tokens, source.spec.max_tokens)
        self._tokeniser = Tokeniser(source.folder / "tokenizer.json", most)
        config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
        self._size = int(config["hidden_size"])
        self._bert = AutoModel.from_pretrained(
            str(source.folder), dtype=torch.float32, add_pooling_layer=False
        )
        self._head = torch.nn.Linear(self._size, len(bias))
        with torch.no_grad():
            self._head.weight.mul_(0.1)
            self._head.bias.copy_(torch.from_numpy(np.asarray(bias, dtype=np.float32)))

    def learn(
        self,
        head: Head,
        texts: tuple[str, ...],
        quality: FloatArray,
        inside: IntArray,
        outside: IntArray,
        *,
        epochs: int,
        rate: float,
        seed: int,
    ) -> dict[str, FloatArray]:
        """The weights of the epoch that was best on the rows `outside`."""
        torch = self._torch
        optimiser = torch.optim.AdamW(
            [
                {"params": list(self._bert.parameters()), "lr": rate},
                {"params": list(self._head.parameters()), "lr": rate * HEAD_RATE},
            ],
            weight_decay=0.01,
        )
        steps = epochs * -(-len(inside) // BATCH)
        warm = max(1, round(WARM_UP * steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
        )
        order = np.random.default_rng(seed)
        best, kept = np.inf, self.weights()
        for _ in range(epochs):
            self._bert.train()
            shuffled = inside[order.permutation(len(inside))]
            for at in range(0, len(shuffled), BATCH):
                rows = shuffled[at : at + BATCH]
                part = [texts[int(row)] for row in rows]
                for batch in self._tokeniser.batches(part, BATCH):  # one batch, its rows reordered
                    truth = torch.from_numpy(quality[rows[batch.rows]].astype(np.float32))
                    optimiser.zero_grad()
                    head.loss(self._forward(batch), truth).backward()
                    torch.nn.utils.clip_grad_norm_(self._bert.parameters(), 1.0)
                    optimiser.step()
                    schedule.step()
            logits = torch.from_numpy(self.logits([texts[int(row)] for row in outside]))
            loss = float(head.loss(logits, torch.from_numpy(quality[outside])))
            if loss < best:
                best, kept = loss, self.weights()
        return kept

    def logits(self, texts: list[str]) -> FloatArray:
        """Logits of each text, [n, experts]."""
        found: FloatArray = np.empty((len(texts), self._head.out_features))
        self._bert.eval()
        with self._torch.inference_mode():
            for batch in self._tokeniser.batches(texts, SCORED):
                found[batch.rows] = self._forward(batch).numpy().astype(np.float64)
        return found

    def weights(self) -> dict[str, FloatArray]:
        found = {f"bert.{name}": value for name, value in self._bert.state_dict().items()}
        found |= {f"head.{name}": value for name, value in self._head.state_dict().items()}
        return {name: value.detach().numpy().copy() for name, value in found.items()}

    def set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        """Load stored weights.

        Raises:
            WeightsError: names or shapes are not this BERT's.
        """
        torch = self._torch
        try:
            for part, module in (("bert.", self._bert), ("head.", self._head)):
                own = {
                    name.removeprefix(part): torch.from_numpy(np.asarray(value, dtype=np.float32))
                    for name, value in weights.items()
                    if name.startswith(part)
                }
                module.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise WeightsError(f"stored weights are not this encoder's: {error}") from error

    def _forward(self, batch: TokenBatch) -> Any:
        torch = self._torch
        mask = torch.from_numpy(batch.mask)
        states = self._bert(input_ids=torch.from_numpy(batch.ids), attention_mask=mask).last_hidden_state
        column = mask.unsqueeze(-1).float()
        mean = (states * column).sum(1) / column.sum(1)
        return self._head(torch.nn.functional.normalize(mean, dim=1) * self._size**0.5)
