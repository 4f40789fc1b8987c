"""A saved policy decides as before; each kind of tampering has an error of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from router import artifact
from router.core import Decision, Preferences, QueryBatch, RouteRequest
from router.data.dataset import to_dataset
from router.encoders import EncoderSpec
from router.errors import (
    IntegrityError,
    ManifestError,
    MethodError,
    NoEligibleExpertError,
    PoolError,
    SchemaVersionError,
    WeightsError,
)
from router.experts import Price
from router.policy import Policy
from router.training.train import train
from tests.router.data_sets import POOL, dataset, embeddings, rows

SPEC = EncoderSpec("test", "0" * 64, 16, 128)
QUERIES = ("What is 3 plus 4?", "Spell the word abc backwards", "Etwas ganz anderes")
BATCH = QueryBatch(QUERIES, embeddings(QUERIES))
CARD = "# Card\n"
OLD = Path(__file__).parent / "fixtures" / "policy-schema-1"


@pytest.fixture(scope="module")
def policy() -> Policy:
    data = dataset(240)
    return train(data, embeddings(data.texts), SPEC, method="knn", seed=0)


@pytest.fixture
def folder(policy: Policy, tmp_path: Path) -> Path:
    policy.save(tmp_path / "policy", CARD)
    return tmp_path / "policy"


def decided(policy: Policy, **request: Any) -> list[Any]:
    return policy.decide(BATCH, [RouteRequest(text, **request) for text in QUERIES])


def test_a_loaded_policy_decides_as_the_saved_one(policy: Policy, folder: Path) -> None:
    loaded = Policy.load(folder)

    assert loaded.policy_id == artifact.policy_id((folder / "manifest.json").read_bytes())
    np.testing.assert_array_equal(loaded.score(BATCH).quality, policy.score(BATCH).quality)
    for ours, theirs in zip(decided(loaded), decided(policy), strict=True):
        assert ours.ranking == theirs.ranking
        assert ours.experts == theirs.experts


def test_equal_training_gives_equal_bytes(tmp_path: Path) -> None:
    data = dataset(60)
    for name in ("a", "b"):
        train(data, embeddings(data.texts), SPEC, method="knn", seed=3).save(tmp_path / name, CARD)

    assert Policy.load(tmp_path / "a").policy_id == Policy.load(tmp_path / "b").policy_id


def test_it_routes_by_meaning_and_names_costs(policy: Policy) -> None:
    sums, words, _ = decided(policy, preferences=Preferences(cost_weight=0.1))

    assert (sums.expert, words.expert) == ("sums", "words")
    assert sums.experts["large"].cost_usd > 5 * sums.experts["sums"].cost_usd
    assert all(0 <= view.score <= 1 for view in sums.experts.values())


def test_exclusions_and_limits_are_reported(policy: Policy) -> None:
    (decision, *_) = decided(
        policy,
        excluded={"sums": "breaker open"},
        preferences=Preferences(max_ttft_ms=50, cost_weight=0),
        ttft_ms={"large": 60.0},
    )

    assert decision.ranking == ("words",)
    assert decision.experts["sums"].excluded_because == "breaker open"
    assert "above max_ttft_ms" in decision.experts["large"].excluded_because


def test_one_hopeless_request_does_not_fail_its_batch(policy: Policy) -> None:
    requests = [
        RouteRequest(QUERIES[0], Preferences(max_cost_usd=0.0)),
        RouteRequest(QUERIES[1]),
        RouteRequest(QUERIES[2], excluded=dict.fromkeys(policy.pool.names, "no")),
    ]
    none, some, nobody = policy.decide(BATCH, requests)

    assert none.ranking == ()
    assert "above max_cost_usd" in none.exclusions["sums"]
    assert some.ranking
    with pytest.raises(NoEligibleExpertError, match="no"):
        _ = nobody.expert


def test_a_bound_on_the_answer_bounds_its_cost(policy: Policy) -> None:
    (short, *_), (long, *_) = decided(policy, max_tokens=1), decided(policy)

    assert short.experts["large"].cost_usd < long.experts["large"].cost_usd


def test_far_from_everything_seen_the_means_answer_and_say_so(policy: Policy) -> None:
    away = -BATCH.embeddings[:1] - BATCH.embeddings[1:2]
    away = (away / np.linalg.norm(away)).astype(np.float32)
    (decision,) = policy.decide(QueryBatch(("?",), away), [RouteRequest("?")])

    assert isinstance(decision, Decision)
    assert decision.unfamiliar
    assert decision.experts["large"].score == pytest.approx(policy.guard.means[2])


def test_other_prices_change_costs_and_keep_the_id(policy: Policy) -> None:
    changed = policy.with_overrides(prices={"sums": Price(50, 100)}, preferences=Preferences(cost_weight=2.0))

    assert changed.policy_id == policy.policy_id
    assert decided(changed)[0].experts["sums"].cost_usd > decided(policy)[0].experts["sums"].cost_usd
    assert changed.preferences.cost_weight == 2.0
    with pytest.raises(PoolError, match="stranger"):
        policy.with_overrides(prices={"stranger": Price(1, 1)})


def test_prices_that_cannot_change_a_decision_are_logged(
    policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    data = to_dataset(
        [row | {"cost_usd": 1e-6, "completion_tokens": None, "prompt_tokens": None} for row in rows(60)],
        pool=POOL,
    )
    learnt = train(data, embeddings(data.texts), SPEC, method="knn", seed=0)
    policy.with_overrides(prices={"sums": Price(50, 100)})
    learnt.with_overrides(preferences=Preferences(cost_weight=1.0))
    assert caplog.text == ""

    changed = learnt.with_overrides(prices={"sums": Price(50, 100)})

    assert "prices of sums do not change the decisions of policy unsaved" in caplog.text
    assert changed.pool["sums"].price == Price(50, 100)
    assert decided(changed)[0].experts["sums"].cost_usd == decided(learnt)[0].experts["sums"].cost_usd


def test_nothing_is_overwritten(folder: Path, policy: Policy) -> None:
    with pytest.raises(FileExistsError):
        policy.save(folder, CARD)


def test_no_query_text_is_stored(folder: Path) -> None:
    stored = b"".join(file.read_bytes() for file in folder.iterdir())

    assert b"backwards" not in stored


def manifest(folder: Path, change: Any) -> None:
    file = folder / "manifest.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def poison(folder: Path) -> None:
    """NaN in the weights, with hashes that fit: only the content betrays it."""
    arrays = load_file(str(folder / "router.safetensors"))
    name = next(name for name, value in arrays.items() if value.dtype.kind == "f")
    arrays[name].flat[0] = np.nan
    save_file(arrays, str(folder / "router.safetensors"))
    relist(folder)


def misshape(folder: Path) -> None:
    arrays = load_file(str(folder / "router.safetensors"))
    arrays["method/quality"] = arrays["method/quality"][:, :2].copy()
    save_file(arrays, str(folder / "router.safetensors"))
    relist(folder)


def relist(folder: Path) -> None:
    import hashlib

    data = (folder / "router.safetensors").read_bytes()
    listed = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest(folder, lambda facts: facts["files"].update({"router.safetensors": listed}))


TAMPERED: dict[str, tuple[Any, type[Exception]]] = {
    "no folder": (shutil.rmtree, ManifestError),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), ManifestError),
    "manifest is not JSON": (lambda f: (f / "manifest.json").write_bytes(b"\xff{"), ManifestError),
    "another format": (lambda f: manifest(f, lambda m: m.update(format="x")), ManifestError),
    "no version": (lambda f: manifest(f, lambda m: m.pop("schema_version")), ManifestError),
    "a newer version": (lambda f: manifest(f, lambda m: m.update(schema_version=99)), SchemaVersionError),
    "no pool": (lambda f: manifest(f, lambda m: m.pop("pool")), ManifestError),
    "weights changed": (lambda f: flip(f / "router.safetensors"), IntegrityError),
    "weights cut": (
        lambda f: (f / "router.safetensors").write_bytes((f / "router.safetensors").read_bytes()[:-1]),
        IntegrityError,
    ),
    "weights gone": (lambda f: (f / "router.safetensors").unlink(), IntegrityError),
    "card changed": (lambda f: flip(f / "CARD.md") or (f / "CARD.md").write_text("x"), IntegrityError),
    "a stranger": (lambda f: (f / "extra.bin").write_bytes(b"x"), IntegrityError),
    "NaN": (poison, WeightsError),
    "a wrong shape": (misshape, WeightsError),
    "a path that leaves": (
        lambda f: manifest(f, lambda m: m["files"].update({"../x": {"sha256": "", "size": 0}})),
        ManifestError,
    ),
    "an unknown method": (
        lambda f: manifest(f, lambda m: m["router"].update(name="nobodys")),
        MethodError,
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_policy_is_rejected_by_its_own_error(folder: Path, case: str) -> None:
    tamper, error = TAMPERED[case]
    if case.startswith("card"):
        (folder / "CARD.md").write_text("changed")
    else:
        tamper(folder)

    with pytest.raises(error):
        Policy.load(folder)


def test_a_policy_of_schema_1_loads_for_good() -> None:
    policy = Policy.load(OLD)
    (decision, *_) = decided(policy)

    assert policy.pool.names == ("sums", "words", "large")
    assert decision.expert == "sums"


def test_waits_are_learnt_and_what_the_caller_sees_goes_before(tmp_path: Path) -> None:
    data = to_dataset(
        [row | {"ttft_s": 0.2 if row["expert"] == "large" else 0.02} for row in rows(120)], pool=POOL
    )
    learnt = train(data, embeddings(data.texts), SPEC, method="knn").save(tmp_path / "p", CARD)
    loaded, limit = Policy.load(tmp_path / "p"), Preferences(max_ttft_ms=100, cost_weight=0)
    (learned, *_), (seen, *_) = (
        decided(loaded, preferences=limit),
        decided(loaded, preferences=limit, ttft_ms={"large": 5.0, "sums": 500.0}),
    )

    assert learnt.policy_id == loaded.policy_id
    assert learned.experts["large"].ttft_ms == pytest.approx(200, rel=0.1)
    assert "expected wait 200 ms is above max_ttft_ms 100" in learned.experts["large"].excluded_because
    assert seen.experts["large"].eligible
    assert not seen.experts["sums"].eligible


def test_the_card_is_saved_as_it_is(folder: Path) -> None:
    assert (folder / "CARD.md").read_text() == Policy.load(folder).card == CARD
