"""Settings: unknown keys rejected with their name, paths resolved, pools placed."""

import pickle  # noqa: TID251 - the trip between processes is Ray's, and it pickles
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from pydantic import ValidationError

from deployments.app import build_app, build_expert
from deployments.config import AppArgs, CanarySettings, IngressConfig, RouterConfig
from deployments.contracts import errors
from deployments.engine_settings import ExpertArgs
from deployments.placement import actor_options, bundle_selector, engine_environment, placement_group
from deployments.settings import project_root, resolve
from router import errors as router_errors
from router.validation import explain

ROOT = Path(__file__).resolve().parents[2]


def expert(**changes: Any) -> ExpertArgs:
    return ExpertArgs.model_validate({"name": "e", "model": "org/model", **changes})


def test_the_shipped_configuration_is_valid() -> None:
    data = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    graph, *experts = data["applications"]
    AppArgs.model_validate(graph["args"])
    ingress, router = (deployment["user_config"] for deployment in graph["deployments"])

    assert set(IngressConfig.model_validate(ingress).experts) == {app["args"]["name"] for app in experts}
    assert set(RouterConfig.model_validate(router).prices) == {app["args"]["name"] for app in experts}
    assert all(ExpertArgs.model_validate(app["args"]).accelerator == "cpu" for app in experts)


@pytest.mark.parametrize("builder", [build_app, build_expert])
def test_builders_are_annotated_with_classes_not_text(builder: Any) -> None:
    """Serve reads the annotation: a string there would make it pass an unchecked dict."""
    annotation = builder.__annotations__["args"]

    assert isinstance(annotation, type)
    assert get_type_hints(builder)["args"] is annotation


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (AppArgs, {"router": {"max_batch": 3}}, "args.router.max_batch: unknown key"),
        (
            AppArgs,
            {"ingress": {"max_body_mib": -1}},
            "args.ingress.max_body_mib: Input should be greater than 0",
        ),
        (ExpertArgs, {"name": "e"}, "args.model: missing"),
        (ExpertArgs, {"name": "e", "model": "m", "engine": {"model": "x"}}, "remove it from `engine`"),
        (IngressConfig, {"experts": {}}, "args.experts: "),
        (
            IngressConfig,
            {"experts": {"a": {"app": "x"}}, "query": {"keep": ["mine"]}},
            "no known tag of a harness",
        ),
        (IngressConfig, {"experts": {"auto": {"app": "x"}}}, "no expert and no preset may have it"),
        (IngressConfig, {"experts": {"a": {}}}, "set one of them"),
        (IngressConfig, {"experts": {"a": {"url": "file:///x"}}}, "url must begin with http"),
        (IngressConfig, {"experts": {"a": {"app": "x"}}, "presets": {"a": {}}}, "found both: a"),
        (
            IngressConfig,
            {"experts": {"a": {"app": "x"}}, "presets": {"p": {"cost_weight": -1}}},
            "cost_weight",
        ),
        (RouterConfig, {"policy": "p", "prices": {"a": {"input": -1, "output": 1}}}, "args.prices.a.input"),
    ],
)
def test_a_fault_is_reported_with_its_key(model: Any, data: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)

    assert message in explain(caught.value, "args")


def test_relative_paths_start_at_the_projects_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert project_root() == ROOT
    monkeypatch.setenv("TO_ROUTER_ROOT", str(tmp_path))

    assert resolve("a/b") == tmp_path / "a" / "b"
    assert resolve("/x") == Path("/x")


def test_an_experts_pool_is_named_on_its_bundles() -> None:
    args = expert(pool={"labels": {"pool": "math"}}, engine={"tensor_parallel_size": 2})

    assert placement_group(args) == {"bundles": [{"CPU": 1.0, "GPU": 1.0}] * 2, "strategy": "STRICT_PACK"}
    assert bundle_selector(args) == [{"pool": "math"}] * 2


def test_a_custom_resource_is_in_every_bundle() -> None:
    args = expert(pool={"resources": {"pool_math": 0.001}}, engine={"pipeline_parallel_size": 2})

    assert placement_group(args)["bundles"] == [{"CPU": 1.0, "GPU": 1.0, "pool_math": 0.001}] * 2
    assert placement_group(args)["strategy"] == "PACK"
    assert bundle_selector(args) is None


def test_a_cpu_engine_never_takes_the_machines_memory() -> None:
    unset = engine_environment(expert(accelerator="cpu"))
    said = engine_environment(expert(accelerator="cpu", engine={"kv_cache_memory_bytes": 1 << 27}))

    assert unset["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in said


def test_plain_deployments_name_their_pool_on_the_actor() -> None:
    pool = AppArgs.model_validate({"router": {"pool": {"labels": {"pool": "cpu"}}}}).router.pool

    assert actor_options(pool, num_cpus=0, num_gpus=0.25) == {
        "num_cpus": 0,
        "num_gpus": 0.25,
        "label_selector": {"pool": "cpu"},
    }


def test_serve_gets_the_spread_and_the_share_of_a_gpu() -> None:
    args = AppArgs.model_validate(
        {"router": {"num_gpus": 0.25, "max_replicas_per_node": 2}, "ingress": {"max_replicas_per_node": 1}}
    )

    ingress = build_app(args)._bound_deployment
    router = ingress.init_args[1]._bound_deployment

    assert ingress._replica_config.max_replicas_per_node == 1
    assert router._replica_config.max_replicas_per_node == 2
    assert router.ray_actor_options["num_gpus"] == 0.25


def instances() -> list[BaseException]:
    made: list[BaseException] = [
        router_errors.NoEligibleExpertError({"a": "why"}),
        router_errors.SchemaVersionError(3, 2),
    ]
    for module in (errors, router_errors):
        for value in vars(module).values():
            if not isinstance(value, type) or not issubclass(value, Exception):
                continue
            if issubclass(value, errors.ExpertError):
                made.append(value("expert", "why"))
            elif value not in {router_errors.NoEligibleExpertError, router_errors.SchemaVersionError}:
                made.append(value("message"))
    return made


@pytest.mark.parametrize("error", instances(), ids=lambda error: type(error).__name__)
def test_every_error_survives_the_trip_between_processes(error: BaseException) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__


def test_a_canarys_end_is_a_date_in_utc_and_no_number() -> None:
    def canary(**fields: Any) -> CanarySettings | None:
        return RouterConfig.model_validate({"canary": {"policy": "new", **fields}}).canary

    plain = canary()
    dated = canary(until="2027-01-31", share=0.2)

    assert plain == CanarySettings(policy="new", share=0.05, until=None)
    assert dated is not None
    assert dated.until == datetime(2027, 1, 31, tzinfo=UTC)
    for wrong in ({"until": 5}, {"until": "soon"}, {"share": 0}, {"share": 0.6}, {"shares": 0.1}):
        with pytest.raises(ValidationError):
            canary(**wrong)
