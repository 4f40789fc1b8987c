"""BERT on torch: half precision on a GPU, fp32 on a CPU without OpenVINO."""

import numpy as np

from router.core import FloatArray
from router.encoders.source import EncoderSource
from router.encoders.tokens import TokenBatch


class TorchBert:
    """A BERT that transformers loads."""

    def __init__(self, source: EncoderSource, *, device: str, threads: int) -> None:
        import torch
        from transformers import AutoModel

        if device == "cpu":
            torch.set_num_threads(threads)
        self._torch = torch
        self._device = torch.device(device)
        dtype = torch.float16 if device == "cuda" else torch.float32
        model = AutoModel.from_pretrained(str(source.folder), dtype=dtype, add_pooling_layer=False)
        self._model = model.to(self._device).eval()

    def forward(self, batch: TokenBatch) -> tuple[FloatArray, FloatArray]:
        """(token states, mean over tokens)."""
        torch = self._torch
        with torch.inference_mode():
            ids = torch.from_numpy(batch.ids).to(self._device)
            mask = torch.from_numpy(batch.mask).to(self._device)
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            column = mask.unsqueeze(-1).float()
            mean = (states * column).sum(1) / column.sum(1)
            return np.asarray(states.cpu().numpy()), np.asarray(mean.cpu().numpy())
