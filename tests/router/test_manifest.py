"""The manifest's schema: what it accepts, and what an error says."""

import json
from typing import Any

import pytest

from router.encoders import EncoderSpec
from router.errors import ManifestError
from router.experts import ExpertProfile, Price
from router.manifest import read_manifest
from tests.router.test_policy import OLD

FACTS = json.loads((OLD / "manifest.json").read_text())


def changed(**parts: Any) -> dict[str, Any]:
    return {**FACTS, **parts}


def test_the_facts_of_schema_1_are_read() -> None:
    manifest = read_manifest(FACTS)

    assert manifest.encoder == EncoderSpec("test", "0" * 64, 16, 128)
    assert manifest.pool[0] == ExpertProfile("sums", Price(0.05, 0.1), 512)
    assert manifest.router.name == "knn"
    assert manifest.wait_model is None
    assert manifest.cost_model.parts == ["tokens", "prompt_factor"]


def test_a_key_of_a_later_build_is_ignored() -> None:
    assert read_manifest(changed(later=1)) == read_manifest(FACTS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"sha256": "xyz"},
        {"dimension": 0},
        {"dimension": True},
        {"dimension": 10**12},
        {"max_tokens": "many"},
        {"more": 1},
    ],
)
def test_an_invalid_encoder_is_rejected(wrong: dict[str, object]) -> None:
    (key,) = wrong
    with pytest.raises(ManifestError, match=rf"encoder\.{key}: "):
        read_manifest(changed(encoder=FACTS["encoder"] | wrong))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pool": []}, "pool: List should have at least 1 item"),
        ({"static_ranking": ["sums", "sums", "large"]}, "static_ranking must hold each expert"),
        ({"preferences": {"cost_weight": "1"}}, "preferences.cost_weight: Input should be a valid number"),
        ({"preferences": {"cost_weight": -1}}, "cost_weight must be a finite number of at least 0"),
        ({"preferences": {"taste": 1}}, "'taste' is no preference; known: cost_weight"),
        ({"router": {"name": "knn"}}, "router.params: missing"),
        ({"calibration": {"kind": "tea leaves", "knots": 3}}, "calibration.kind: .*'tea leaves'"),
        ({"cost_model": {"prices_per_mtok": [[-1, 1]], "parts": []}}, "greater than or equal to 0, found -1"),
        ({"cost_model": {"prices_per_mtok": [], "parts": ["luck"]}}, "cost_model.parts.0: .*'luck'"),
        ({"seed": "0x1f"}, "seed: "),
    ],
)
def test_an_invalid_part_is_named_with_its_value(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(changed(**parts))


@pytest.mark.parametrize("key", ["router", "encoder", "pool", "cost_model", "calibration", "static_ranking"])
def test_a_missing_part_is_named(key: str) -> None:
    with pytest.raises(ManifestError, match=f"{key}: missing"):
        read_manifest({name: value for name, value in FACTS.items() if name != key})
