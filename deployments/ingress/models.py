"""`/v1/models`: `auto`, the presets, and the experts that the caller may use."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.config import AUTO
from deployments.contracts.errors import ErrorCode, NotFound
from deployments.limits.keys import Caller
from deployments.upstream.eligibility import context_window
from deployments.upstream.registry import ExpertRegistry


def routes(registry: ExpertRegistry, caller: Callable[[Request], Caller | None]) -> list[Route]:
    """The list of models, and each model alone.

    Args:
        registry: the experts and presets.
        caller: returns the key of a request, `None` where keys are off; raises where a key is missing.
    """

    async def list_models(request: Request) -> Response:
        names = model_names(registry, caller(request))
        return JSONResponse({"object": "list", "data": [model_card(registry, name) for name in names]})

    async def show_model(request: Request) -> Response:
        name = request.path_params["model"]
        if name not in model_names(registry, caller(request)):
            text = f"the model {name[:128]!r} does not exist"
            raise NotFound(text, ErrorCode.MODEL_NOT_FOUND, "model")
        return JSONResponse(model_card(registry, name))

    return [
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", show_model, methods=["GET"]),
    ]


def model_names(registry: ExpertRegistry, caller: Caller | None) -> list[str]:
    """`auto` first, then the presets, then the experts that the caller may use."""
    allowed = None if caller is None else caller.experts
    experts = [name for name in registry.experts if allowed is None or name in allowed]
    return [AUTO, *registry.config.presets, *experts]


def model_card(registry: ExpertRegistry, name: str) -> dict[str, Any]:
    """A model as OpenAI's and vLLM's clients read it."""
    expert = registry.experts.get(name)
    names = list(registry.experts) if expert is None else [name]
    windows = [window for name in names if (window := context_window(registry, name)) is not None]
    card: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "to-router" if expert is None else "expert",
        "max_model_len": max(windows, default=None),
    }
    if expert is not None and (root := expert.state.model or expert.target.model) is not None:
        card["root"] = root
    if expert is not None and expert.state.shape:
        card["config"] = dict(expert.state.shape)
    return card
