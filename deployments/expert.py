"""An expert: vLLM behind Ray Serve LLM, answering through vLLM's own OpenAI app in process.

The only module that imports `ray.serve.llm`, and so vLLM (0.4 GB): it is loaded where an expert
is built or runs, never at the ingress. No engine adapter: every endpoint is vLLM's.
"""

import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer

from deployments.asgi import ASGIApp, Head, Headers, call
from deployments.config import EXPERT_DEPLOYMENT, ExpertArgs
from deployments.identity import name_of_replica
from deployments.placement import bundle_selector, engine_environment, placement_group

logger = logging.getLogger("ray.serve")


class Expert(LLMServer):
    """One engine replica."""

    # Serve awaits an async constructor; its base class has one too.
    async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]
        await super().__init__(*args, **kwargs)
        self._app: ASGIApp = await self.__serve_build_asgi_app__()
        await self._warm_up()

    async def _warm_up(self) -> None:
        """Pay for what an engine compiles and loads on its first request before Serve sends one.

        Whatever the engine answers is fine: an embedding model refuses chat, and is warm by then.
        """
        body = orjson.dumps(
            {
                "model": self._llm_config.model_id,
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 2,
                "stream": True,
            }
        )
        started = time.monotonic()
        answer = call(
            self._app, "POST", "/v1/chat/completions", ((b"content-type", b"application/json"),), body
        )
        async for _ in answer:
            pass
        logger.info("%s warmed up in %.1f s", self._llm_config.model_id, time.monotonic() - started)

    async def exposition(self) -> tuple[str, bytes]:
        """This replica's name and its engine's metrics, in the text format of Prometheus."""
        answer = call(self._app, "GET", "/metrics", (), b"")
        body = b"".join([part.body if isinstance(part, Head) else part async for part in answer])
        return name_of_replica(), body

    async def http(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[Head | bytes, None]:
        """Answer as `vllm serve` would: a `Head`, then body bytes.

        Cancelling the call aborts the engine's request.
        """
        answer = call(self._app, method, path, headers, body)
        try:
            async for part in answer:
                yield part
        finally:
            await answer.aclose()


def llm_config(args: ExpertArgs) -> LLMConfig:
    """Ray Serve LLM's configuration of an expert."""
    on_cpu = args.accelerator == "cpu"
    return LLMConfig(
        model_loading_config={"model_id": args.name, "model_source": args.model_source},
        engine_kwargs=dict(args.engine),
        accelerator_type=None if args.accelerator in {"cpu", "gpu"} else args.accelerator,
        accelerator_config={"kind": "cpu"} if on_cpu else None,
        placement_group_config=placement_group(args),
        runtime_env={"env_vars": engine_environment(args)},
        # The replica itself needs nothing beside its bundles: the engine's workers do the work.
        deployment_config={"ray_actor_options": {"num_cpus": 0}},
        log_engine_metrics=False,  # the engine's own registry is read through its app's /metrics
    )


def serve_options(args: ExpertArgs) -> dict[str, Any]:
    """What Ray Serve LLM's builder would set otherwise."""
    options: dict[str, Any] = {"name": EXPERT_DEPLOYMENT}
    if selector := bundle_selector(args):
        options["placement_group_bundle_label_selector"] = selector
    return options


def build(args: ExpertArgs) -> Any:
    """The Serve application of one expert."""
    return build_llm_deployment(
        llm_config(args), deployment_cls=Expert, override_serve_options=serve_options(args)
    )
