"""BERT on OpenVINO, built operation by operation from the safetensors file: no torch, no export step.

The architecture is Devlin et al., arXiv 1810.04805; the pooling (mean over tokens) is Reimers and
Gurevych, arXiv 1908.10084.
"""

import math
import threading
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from safetensors.numpy import load_file

from router.core import FloatArray
from router.encoders.source import EncoderSource
from router.encoders.tokens import TokenBatch
from router.errors import EncoderError

MASKED = -1e4
"""Added to the attention scores of padding; still finite in half precision."""
LONE_LENGTHS = (8, 16, 32, 64)
"""Tokens up to which a text that comes alone has a network of fixed shape: what the runtime prepares for
a shape that it learns at the call takes a tenth of a lone query's time (`experiments.lone_query`)."""


class OpenVinoBert:
    """A compiled BERT; bf16 where the processor has it, fp32 elsewhere."""

    def __init__(self, source: EncoderSource, *, threads: int) -> None:
        core = ov.Core()
        try:
            model = _Graph(source).build()
        except KeyError as error:
            raise EncoderError(f"the encoder's weights lack {error.args[0]!r}") from error
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
            "ENABLE_CPU_PINNING": False,  # replicas share a machine with engines
        }
        self._any = core.compile_model(model, "CPU", options)
        self._lone: dict[int, ov.CompiledModel] = {}
        for length in (one for one in LONE_LENGTHS if one <= source.spec.max_tokens):
            fixed = model.clone()  # the weights are shared
            fixed.reshape({"ids": [1, length], "mask": [1, length]})
            self._lone[length] = core.compile_model(fixed, "CPU", options)
        self._own = _Own()

    def forward(self, batch: TokenBatch) -> tuple[FloatArray, FloatArray]:
        """(token states, mean over tokens); each thread has an inference request of its own."""
        n, tokens = batch.ids.shape
        length = next((one for one in self._lone if one >= tokens), None) if n == 1 else None
        if length is None:
            # Not kept: it would hold on to the memory of the largest batch that it ever saw.
            result = self._any.create_infer_request().infer([batch.ids, batch.mask])
        else:
            padded = np.zeros((2, 1, length), dtype=np.int64)
            padded[0, :, :tokens], padded[1, :, :tokens] = batch.ids, batch.mask
            result = self._request(length).infer([padded[0], padded[1]])
        return np.array(result[0][:, :tokens], dtype=np.float32), np.array(result[1], dtype=np.float32)

    def _request(self, length: int) -> ov.InferRequest:
        """This thread's request of a network of fixed shape; to make one takes half a millisecond."""
        requests = self._own.requests
        if length not in requests:
            requests[length] = self._lone[length].create_infer_request()
        return requests[length]


class _Own(threading.local):
    """Inference requests of one thread."""

    def __init__(self) -> None:
        self.requests: dict[int, ov.InferRequest] = {}


class _Graph:
    """The network of one weights file."""

    def __init__(self, source: EncoderSource) -> None:
        self._weights = load_file(str(source.folder / "model.safetensors"))
        if not any(name.startswith("embeddings.") for name in self._weights):
            self._weights = {name.removeprefix("bert."): value for name, value in self._weights.items()}
        self._config = source.config
        self._heads = int(source.config["num_attention_heads"])
        self._size = int(source.config["hidden_size"])
        self._epsilon = float(source.config["layer_norm_eps"])

    def build(self) -> ov.Model:
        ids = ops.parameter([-1, -1], np.int64, name="ids")
        mask = ops.parameter([-1, -1], np.int64, name="mask")
        state = self._embed(ids)
        real = ops.convert(mask, np.float32)
        # [n, tokens] → [n, 1, 1, tokens]: added to every head's and query's scores.
        row = ops.unsqueeze(real, np.array([1, 2]))
        barrier = ops.multiply(ops.subtract(np.float32(1), row), np.float32(MASKED))
        for layer in range(int(self._config["num_hidden_layers"])):
            state = self._layer(state, barrier, f"encoder.layer.{layer}")
        column = ops.unsqueeze(real, np.array([2]))
        total = ops.reduce_sum(ops.multiply(state, column), np.array([1]), keep_dims=False)
        count = ops.reduce_sum(column, np.array([1]), keep_dims=False)
        return ov.Model([state, ops.divide(total, count)], [ids, mask], "encoder")

    def _embed(self, ids: Any) -> Any:
        words = ops.gather(self._constant("embeddings.word_embeddings.weight"), ids, np.int64(0))
        length = ops.gather(ops.shape_of(ids), np.array([1]), np.int64(0))
        steps = ops.range(np.int64(0), ops.squeeze(length, np.array([0])), np.int64(1), output_type="i64")
        positions = ops.gather(self._constant("embeddings.position_embeddings.weight"), steps, np.int64(0))
        segment = self._weights["embeddings.token_type_embeddings.weight"][0].astype(np.float32)
        return self._norm(ops.add(ops.add(words, positions), ops.constant(segment)), "embeddings.LayerNorm")

    def _layer(self, state: Any, barrier: Any, name: str) -> Any:
        query, key, value = (
            self._split(self._dense(state, f"{name}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        scale = np.float32(1 / math.sqrt(self._size / self._heads))
        scores = ops.multiply(ops.matmul(query, key, False, True), scale)
        seen = ops.matmul(ops.softmax(ops.add(scores, barrier), 3), value, False, False)
        joined = ops.reshape(ops.transpose(seen, np.array([0, 2, 1, 3])), np.array([0, 0, self._size]), True)
        attended = self._dense(joined, f"{name}.attention.output.dense")
        state = self._norm(ops.add(state, attended), f"{name}.attention.output.LayerNorm")
        wide = ops.gelu(self._dense(state, f"{name}.intermediate.dense"), "erf")
        return self._norm(
            ops.add(state, self._dense(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm"
        )

    def _split(self, projected: Any) -> Any:
        """Split heads: [n, tokens, size] → [n, heads, tokens, size / heads]."""
        apart = ops.reshape(projected, np.array([0, 0, self._heads, self._size // self._heads]), True)
        return ops.transpose(apart, np.array([0, 2, 1, 3]))

    def _dense(self, value: Any, name: str) -> Any:
        product = ops.matmul(value, self._constant(f"{name}.weight"), False, True)
        return ops.add(product, self._constant(f"{name}.bias"))

    def _norm(self, value: Any, name: str) -> Any:
        centred = ops.mvn(value, np.array([2]), True, self._epsilon, "inside_sqrt")
        return ops.add(
            ops.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias")
        )

    def _constant(self, name: str) -> Any:
        return ops.constant(self._weights[name].astype(np.float32))
