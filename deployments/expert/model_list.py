"""`/v1/models` of an expert's replica: vLLM's list, with the model's name and the shape of its `config.json`.

The ingress reads them with the context window, and a prior of the expert is made from them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from deployments.contracts.messages import Head


def with_shape(listed: Head, model: str, shape: Mapping[str, Any]) -> Head:
    """The complete response with the model in its card; an error and the cards of adapters are unchanged.

    Args:
        listed: vLLM's response.
        model: a hub id, or a folder, of which only the last name is shown.
        shape: of its `config.json`.
    """
    if listed.status != 200:
        return listed
    body = orjson.loads(listed.body)
    named = Path(model).name if Path(model).is_dir() else model
    for card in body["data"]:
        if card.get("parent") is None:
            card |= {"root": named, "config": dict(shape)}
    headers = tuple(header for header in listed.headers if header[0].lower() != b"content-length")
    sent = orjson.dumps(body)
    return replace(listed, headers=(*headers, (b"content-length", str(len(sent)).encode())), body=sent)
