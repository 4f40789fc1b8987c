"""`to-router check`: each error of a configuration is named with its key and its value."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check.config import check_file
from cluster.check.document import read
from router.cli import main
from router.experts import CandidatePool
from router.policy import Policy
from tests.cluster.configs import POLICY, expert, good, written

Break = Callable[[dict[str, Any]], object]


def front(config: dict[str, Any], deployment: int) -> dict[str, Any]:
    """Ingress (0) or router (1)."""
    entry: dict[str, Any] = config["applications"][0]["deployments"][deployment]
    return entry


def first(config: dict[str, Any]) -> dict[str, Any]:
    """The first expert's application."""
    entry: dict[str, Any] = config["applications"][1]
    return entry


def scale(config: dict[str, Any]) -> dict[str, Any]:
    """The first expert's deployment."""
    entry: dict[str, Any] = first(config)["deployments"][0]
    return entry


BROKEN: dict[str, tuple[Break, str, str]] = {
    "an unknown key at the top": (lambda c: c.update(aplications=[]), "aplications", "unknown key"),
    "an unknown key of the application": (
        lambda c: first(c).update(runtime_envs={}),
        "expert-sums.runtime_envs",
        "drop it silently",
    ),
    "an unknown key of a deployment": (
        lambda c: scale(c).update(max_ongoing_request=3),
        "expert-sums.deployments[Expert].max_ongoing_request",
        "drop it silently",
    ),
    "an unknown key of autoscaling": (
        lambda c: scale(c)["autoscaling_config"].update(max_replica=9),
        "autoscaling_config.max_replica",
        "drop it silently",
    ),
    "an unknown key of our own": (
        lambda c: c["applications"][0]["args"]["router"].update(batch=3),
        "to-router.args.router.batch",
        "unknown key",
    ),
    "an unknown engine argument": (
        lambda c: first(c)["args"]["engine"].update(max_modle_len=5),
        "expert-sums.args.engine.max_modle_len",
        "vLLM has no such engine argument",
    ),
    "a model that is missing": (
        lambda c: first(c)["args"].update(model="cluster/local/experts/nowhere"),
        "expert-sums.args.model",
        "nowhere",
    ),
    "replicas fixed on an expert": (
        lambda c: scale(c).update(num_replicas=2),
        "expert-sums.deployments[Expert].num_replicas",
        "silently overridden",
    ),
    "actor options on an expert": (
        lambda c: scale(c).update(ray_actor_options={"num_gpus": 1}),
        "expert-sums.deployments[Expert].ray_actor_options",
        "environment",
    ),
    "actor options at the ingress": (
        lambda c: front(c, 0).update(ray_actor_options={"num_gpus": 1}),
        "to-router.deployments[Ingress].ray_actor_options",
        "use args.ingress.pool",
    ),
    "bundles of a deployment": (
        lambda c: scale(c).update(placement_group_bundles=[{"CPU": 1}]),
        "expert-sums.deployments[Expert].placement_group_bundles",
        "remove it",
    ),
    "replicas per node of a deployment": (
        lambda c: front(c, 1).update(max_replicas_per_node=1),
        "to-router.deployments[Router].max_replicas_per_node",
        "remove it",
    ),
    "no target of autoscaling": (
        lambda c: scale(c)["autoscaling_config"].pop("target_ongoing_requests"),
        "target_ongoing_requests",
        "never scales",
    ),
    "a minimum above the maximum": (
        lambda c: scale(c)["autoscaling_config"].update(min_replicas=5),
        "expert-sums.deployments[Expert].autoscaling_config",
        "min_replicas 5 is above max_replicas 2",
    ),
    "max_ongoing_requests missing at the ingress": (
        lambda c: front(c, 0).pop("max_ongoing_requests"),
        "to-router.deployments[Ingress].max_ongoing_requests",
        "default of 5",
    ),
    "an expert without an application": (
        lambda c: c["applications"].pop(1),
        "experts.sums.app",
        "there is no application 'expert-sums'",
    ),
    "an expert by another name": (
        lambda c: first(c)["args"].update(name="totals"),
        "experts.sums",
        "serves itself as 'totals'",
    ),
    "an expert with a route of its own": (
        lambda c: first(c).update(route_prefix="/sums"),
        "expert-sums.route_prefix",
        "must be null",
    ),
    "the same application twice": (
        lambda c: c["applications"].append(first(c)),
        "applications[].name",
        "'expert-sums' is duplicated",
    ),
    "the price of an unknown expert": (
        lambda c: front(c, 1)["user_config"]["prices"].update(giant={"input": 1, "output": 1}),
        "prices.giant",
        "does not score this expert",
    ),
    "a negative price": (
        lambda c: front(c, 1)["user_config"]["prices"]["sums"].update(input=-1),
        "prices.sums.input",
        "-1",
    ),
    "a price without its output": (
        lambda c: front(c, 1)["user_config"]["prices"].update(sums={"input": 1}),
        "prices.sums.output",
        "missing",
    ),
    "a policy that is missing": (
        lambda c: front(c, 1)["user_config"].update(policy="no/such/policy"),
        "to-router.Router.user_config.policy",
        "no/such/policy",
    ),
    "a policy that does not cover an expert": (
        lambda c: (
            c["applications"].append(expert("new")),
            front(c, 0)["user_config"]["experts"].update(new={"app": "expert-new"}),
        ),
        "to-router.Router.user_config.policy",
        "does not cover the experts new",
    ),
    "a pool named in two ways": (
        lambda c: first(c)["args"].update(pool={"labels": {"a": "b"}, "resources": {"c": 1}}),
        "expert-sums.args.pool",
        "set one of them",
    ),
    "a label too long for Kubernetes": (
        lambda c: first(c)["args"].update(pool={"labels": {"pool": "x" * 64}}),
        "expert-sums.args.pool.labels.pool",
        "a label has 1 to 63 letters",
    ),
    "a label's name with a space": (
        lambda c: first(c)["args"].update(pool={"labels": {"my pool": "x"}}),
        "expert-sums.args.pool.labels.my pool.[key]",
        "a label has 1 to 63 letters",
    ),
    "a label that YAML reads as a truth value": (
        lambda c: first(c)["args"].update(pool={"labels": {"pool": False}}),
        "expert-sums.args.pool.labels.pool",
        "valid string",
    ),
    "a deployment that is not of the graph": (
        lambda c: scale(c).update(name="LLMServer"),
        "expert-sums.deployments[LLMServer].name",
        "no such deployment here; expected Expert",
    ),
    "no ingress": (lambda c: c["applications"].pop(0), "applications", "there is no ingress"),
    "weights that do not fit on the GPU": (
        lambda c: first(c)["args"].update(model="Qwen/Qwen2.5-32B-Instruct", accelerator="L4"),
        "expert-sums.args.accelerator",
        "do not fit on L4",
    ),
    "a context that does not fit beside the weights": (
        lambda c: first(c)["args"].update(
            model="meta-llama/Llama-3.1-8B-Instruct", accelerator="L4", engine={"max_model_len": 131072}
        ),
        "expert-sums.args.engine.max_model_len",
        "131072 tokens take 16.0 GiB",
    ),
}


def errors(config: Any, folder: Path, **options: Any) -> list[tuple[str, str]]:
    findings = check_file(written(config, folder), **options)
    return [(finding.key, finding.message) for finding in findings if finding.is_error]


def test_a_good_configuration_has_no_fault(tmp_path: Path) -> None:
    assert check_file(written(good(), tmp_path)) == []


@pytest.mark.parametrize(("broken", "key", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_fault_is_named_with_its_key(broken: Break, key: str, expected: str, tmp_path: Path) -> None:
    config = good()
    broken(config)

    findings = errors(config, tmp_path)

    assert any(where.endswith(key) and expected in message for where, message in findings), findings


def test_an_application_without_an_expert_is_a_warning(tmp_path: Path) -> None:
    config = good()
    config["applications"].append(expert("idle"))

    findings = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in findings] == [("warning", "expert-idle")]


def test_an_expert_without_a_price_beside_priced_ones_is_a_warning(tmp_path: Path) -> None:
    config = good()
    policy = Policy.load(POLICY)
    pool = CandidatePool([replace(e, price=None) if e.name == "large" else e for e in policy.pool])
    replace(policy, pool=pool).save(tmp_path / "unpriced", policy.card)
    front(config, 1)["user_config"]["policy"] = str(tmp_path / "unpriced")
    del front(config, 1)["user_config"]["prices"]["large"]

    findings = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in findings] == [("warning", "to-router.Router.user_config.prices")]
    assert "large has no price" in findings[0].message


def test_a_key_of_an_expert_elsewhere_that_is_not_set_is_a_warning(tmp_path: Path) -> None:
    config = good()
    far = {"url": "https://models.example/v1", "key_env": "NO_SUCH_KEY"}
    front(config, 0)["user_config"]["experts"]["sums"] = far
    del config["applications"][1]

    findings = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in findings] == [
        ("warning", "to-router.Ingress.user_config.experts.sums.key_env")
    ]


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "applications: 3\n"])
def test_what_is_no_configuration_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text, encoding="utf-8")

    findings = check_file(file)

    assert any(finding.is_error for finding in findings)


def test_a_policy_elsewhere_is_not_checked_on_request(tmp_path: Path) -> None:
    config = good()
    front(config, 1)["user_config"]["policy"] = "policies/default"

    assert errors(config, tmp_path, policy=False) == []


def test_the_exit_code_and_json_are_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = good()
    scale(config)["num_replicas"] = 2

    code = main(["check", str(written(config, tmp_path)), "--json"])

    output = json.loads(capsys.readouterr().out)
    assert (code, output["ok"]) == (2, False)
    assert output["findings"][0]["key"] == "expert-sums.deployments[Expert].num_replicas"


def test_an_application_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    config = good()
    config["applications"].append({"name": "other", "route_prefix": "/other", "import_path": "other:app"})

    findings = [finding for finding in check_file(written(config, tmp_path)) if "other" in finding.key]

    assert [(finding.level, finding.key) for finding in findings] == [("warning", "other.import_path")]


def test_an_address_from_outside_without_keys_is_a_warning(tmp_path: Path) -> None:
    config = good()
    config["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - only written to a file

    findings = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in findings] == [("warning", "Ingress.user_config.keys")]
    front(config, 0)["user_config"]["keys"] = {"file": "/etc/to-router/keys/keys.json"}
    assert check_file(written(config, tmp_path)) == []


def test_anonymous_clients_by_name_are_no_warning(tmp_path: Path) -> None:
    config = good()
    config["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - only written to a file
    front(config, 0)["user_config"]["allow_anonymous"] = True

    assert check_file(written(config, tmp_path)) == []


def test_a_replica_that_would_cut_long_responses_is_a_warning(tmp_path: Path) -> None:
    config = good()
    front(config, 0)["graceful_shutdown_timeout_s"] = 20
    scale(config)["graceful_shutdown_timeout_s"] = 300

    findings = check_file(written(config, tmp_path))

    assert [(f.level, f.key) for f in findings] == [
        ("warning", "to-router.deployments[Ingress].graceful_shutdown_timeout_s"),
        ("warning", "expert-sums.deployments[Expert].graceful_shutdown_timeout_s"),
    ]


def test_by_default_no_replica_cuts_a_response(tmp_path: Path) -> None:
    config = good()
    del front(config, 0)["graceful_shutdown_timeout_s"], scale(config)["graceful_shutdown_timeout_s"]

    assert check_file(written(config, tmp_path)) == []


def test_a_deadline_beyond_haproxys_hard_stop_is_a_warning(tmp_path: Path) -> None:
    config = good()
    config["applications"][0]["args"]["ingress"]["request_timeout_s"] = 700

    findings = check_file(written(config, tmp_path))

    assert [f.key for f in findings if "HAProxy" in f.message] == ["args.ingress.request_timeout_s"]


DUPLICATES = {
    "two ports": ("http_options:\n  host: 127.0.0.1\n  port: 1\n  port: 2\n", "line 4", "'port'", "line 3"),
    "an expert twice": ("a:\n  experts:\n    x: {app: y}\n    x: {app: z}\n", "line 4", "'x'", "line 3"),
    "on one line": ("a: {b: 1, b: 2}\n", "line 1", "'b'", "line 1"),
}


@pytest.mark.parametrize(("text", "line", "key", "first"), DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_duplicated_key_is_an_error_with_its_lines(
    text: str, line: str, key: str, first: str, tmp_path: Path
) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text, encoding="utf-8")

    finding = check_file(file)[0]

    assert (finding.level, finding.key) == ("error", line)
    assert key in finding.message
    assert first in finding.message


@pytest.mark.parametrize("name", ["no", "1.5", "2024-01-01", "7", "null", "true"])
def test_a_key_that_yaml_does_not_read_as_text_is_an_error(name: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(f"experts:\n  {name}: {{app: x}}\n", encoding="utf-8")

    assert "quotes" in check_file(file)[0].message
    assert check_file(file)[0].key == "line 2"


@pytest.mark.parametrize(
    ("number", "read_as"), [("010", "8"), ("8:00", "480"), ("-1:30", "-90"), ("1:30.5", "90.5")]
)
def test_a_number_that_yaml_reads_as_another_is_an_error(number: str, read_as: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(f"http_options:\n  port: {number}\n", encoding="utf-8")

    finding = check_file(file)[0]

    assert (finding.key, finding.is_error) == ("line 2", True)
    assert f"{number} is {read_as} for YAML" in finding.message


@pytest.mark.parametrize("number", ["8", "0", "-8", "1_000", "0x10", "0.5", "1.5e+3", "007.5"])
def test_a_number_that_is_read_as_it_looks_is_no_error(number: str) -> None:
    assert read(f"a: {number}\n")[1] == []


@pytest.mark.parametrize(
    "text", ["applications: &a\n- runtime_env: *a\n", "a: &a {b: {c: *a}}\n", "a: &a [[*a]]\n"]
)
def test_an_object_that_contains_itself_is_one_clear_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text, encoding="utf-8")

    assert [str(finding) for finding in check_file(file)] == ["error: line 1: contains an alias of itself"]


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n"])
def test_an_empty_file_is_called_empty(text: str, tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    file.write_text(text, encoding="utf-8")

    (finding,) = check_file(file)

    assert str(finding) == "error: the file: must be an object with `applications`, it is empty"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_file_of_another_editor_is_read_or_one_error(encoding: str, ends: str, tmp_path: Path) -> None:
    text = yaml.safe_dump(good(), sort_keys=False) + "# é\n"
    file = tmp_path / "serve_config.yaml"
    file.write_bytes(text.replace("\n", ends).encode(encoding))

    findings = check_file(file)

    assert ["is not YAML" in finding.message for finding in findings] == [True] * (encoding != "utf-8-sig")


def test_anchors_and_merge_keys_stay_allowed() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n"

    assert read(text) == ({"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2}}, [])


SHAPES = ({}, [], "x", 3, None, True, [None], ["x"], [3], [[]], {"a": 1})


@pytest.mark.parametrize("value", SHAPES, ids=str)
@pytest.mark.parametrize(
    "path",
    ["applications", "http_options", "applications.0", "applications.1", "applications.0.args",
     "applications.0.args.ingress", "applications.1.args", "applications.1.args.engine",
     "applications.1.name", "applications.1.import_path", "applications.1.deployments",
     "applications.1.deployments.0",
     "applications.1.deployments.0.name", "applications.1.deployments.0.autoscaling_config",
     "applications.0.deployments", "applications.0.deployments.0.user_config",
     "applications.0.deployments.0.user_config.experts", "applications.0.deployments.0.user_config.keys"],
)  # fmt: skip
def test_no_shape_of_a_configuration_is_a_traceback(path: str, value: object, tmp_path: Path) -> None:
    config: Any = good()
    *parents, last = path.split(".")
    place: Any = config
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    file = written(config, tmp_path)

    findings = check_file(file, policy=False)

    assert all("\n" not in str(finding) for finding in findings)
    if not any(finding.is_error for finding in findings):
        assert main(["render", "kuberay", str(file), "--allow-anonymous", "--out", str(tmp_path / "x")]) in {
            0,
            2,
        }


WRONG_VALUES = {
    "engine.max_model_len": ("32k", "4096", -1, 0, True, 1.5),
    "engine.max_num_seqs": (True, "8", 0),
    "engine.gpu_memory_utilization": ("90%", 0, 1.5, True, float("nan")),
    "engine.tensor_parallel_size": (None, "2", True),
    "scale.min_replicas": ("1", -1, None, True, 0.5),
    "scale.max_replicas": ("2", 0, float("inf")),
    "scale.target_ongoing_requests": (0, "8", float("inf")),
    "deployment.max_ongoing_requests": ("64", 0, True, -1),
    "deployment.graceful_shutdown_timeout_s": ("600", -1),
    "http_options.port": ("8000", 70_000, True),
    "http_options.host": (False, 0, ["127.0.0.1"]),
    "engine.dtype": (False, True),
    "engine.enforce_eager": ("yes", 1, "false"),
    "engine.tokenizer": (False, 8, ["a"]),
    "engine.allowed_media_domains": ("example.org", True),
    "engine.limit_mm_per_prompt": (3, "image=1"),
    "app.route_prefix": ("api", False, 3),
    "limits.max_in_flight": (0, float("inf"), 10**15, True),
    "limits.max_queued": (-1, 10**15),
    "limits.max_messages": (10**15,),
    "ingress.max_bodies_mib": (1e300, "1 GiB"),
    "ingress.request_timeout_s": (float("inf"), "10m", "1e3", 10**6),
    "keys.file": ("", False),
    "keys.counts": ("", 3),
    "log.folder": ("", True),
}


@pytest.mark.parametrize(
    ("where", "value"),
    [(where, value) for where, values in WRONG_VALUES.items() for value in values],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(where: str, value: object, tmp_path: Path) -> None:
    config = good()
    part, _, key = where.partition(".")
    places: dict[str, dict[str, Any]] = {
        "engine": first(config)["args"]["engine"],
        "scale": scale(config)["autoscaling_config"],
        "deployment": scale(config),
        "http_options": config["http_options"],
        "app": config["applications"][0],
        "ingress": config["applications"][0]["args"]["ingress"],
        **{name: front(config, 0)["user_config"].setdefault(name, {}) for name in ("limits", "log")},
    }
    if part == "keys":
        places["keys"] = front(config, 0)["user_config"].setdefault("keys", {"file": "keys.json"})
    places[part][key] = value

    assert [found for found, _ in errors(config, tmp_path, policy=False) if found.endswith(f".{key}")]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), True, "1", -1])
def test_a_price_is_a_finite_amount(value: object, tmp_path: Path) -> None:
    config = good()
    front(config, 1)["user_config"]["prices"]["sums"]["input"] = value

    assert errors(config, tmp_path)[0][0].endswith("prices.sums.input")


def test_two_experts_on_one_application_are_an_error(tmp_path: Path) -> None:
    config = good()
    front(config, 0)["user_config"]["experts"] = {name: {"app": "expert-sums"} for name in ("other", "sums")}

    assert any("same variant of 'expert-sums'" in text for _, text in errors(config, tmp_path, policy=False))


@pytest.mark.parametrize(
    "url", ["https:///v1", "https://", "https://x/v1?a=b", "https://x/v1#a", "https://user:pw@x/v1", "x/v1"]
)
def test_a_url_to_which_no_path_can_be_appended_is_an_error(url: str, tmp_path: Path) -> None:
    config = good()
    front(config, 0)["user_config"]["experts"]["sums"] = {"url": url}

    findings = errors(config, tmp_path, policy=False)

    assert any(key.endswith("experts.sums") for key, _ in findings)
    assert not any("user:pw" in message for _, message in findings)


def test_a_url_without_v1_is_a_warning(tmp_path: Path) -> None:
    config = good()
    front(config, 0)["user_config"]["experts"]["sums"] = {"url": "https://models.example"}

    findings = check_file(written(config, tmp_path), policy=False)

    assert [f.key for f in findings if "/v1" in f.message] == [
        "to-router.Ingress.user_config.experts.sums.url"
    ]


@pytest.mark.parametrize("key", ["sk-proj-4f9", "sk_live_abcdefghij0123456789"])
def test_a_key_in_place_of_its_variable_is_not_repeated(key: str, tmp_path: Path) -> None:
    config = good()
    target = {"url": "https://models.example/v1", "key_env": key}
    front(config, 0)["user_config"]["experts"]["sums"] = target

    findings = errors(config, tmp_path, policy=False)

    assert any(where.endswith("sums.key_env") and "not a key" in message for where, message in findings)
    assert not any(key in message for _, message in findings)
