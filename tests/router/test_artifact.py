"""A policy folder is trusted only as far as it proves itself."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import artifact
from router.artifact import Artifact
from router.errors import ArtifactError, IntegrityError, ManifestError, RouterError, WeightsError
from router.policy import Policy
from tests.router.test_policy import OLD

SIMPLE = Artifact({"pool": []}, {"a": np.arange(6.0).reshape(2, 3)}, "# Card\n")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    saved_id = artifact.save(tmp_path / "p", SIMPLE)
    found, loaded_id = artifact.load(tmp_path / "p")

    assert saved_id == loaded_id
    assert len(saved_id) == 12
    assert found.facts == {"format": "to-router-policy", "schema_version": 2, "pool": []}
    assert found.card == "# Card\n"
    np.testing.assert_array_equal(found.arrays["a"], SIMPLE.arrays["a"])
    assert sorted(file.name for file in (tmp_path / "p").iterdir()) == [
        "CARD.md",
        "manifest.json",
        "router.safetensors",
    ]


def test_equal_contents_have_equal_ids(tmp_path: Path) -> None:
    assert artifact.save(tmp_path / "a", SIMPLE) == artifact.save(tmp_path / "b", SIMPLE)


def test_a_value_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'a' holds a value that is not finite"):
        artifact.save(tmp_path / "p", Artifact({}, {"a": np.array([1.0, np.inf])}, ""))

    assert list(tmp_path.iterdir()) == []


def test_when_saving_fails_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"a fact of the policy .* is not JSON"):
        artifact.save(tmp_path / "p", Artifact({"x": float("nan")}, {}, ""))

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(FileExistsError, match="already exists"):
        artifact.save(tmp_path / "p", SIMPLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "policy"))


def test_a_link_instead_of_a_file_is_rejected(folder: Path) -> None:
    (folder / "CARD.md").rename(folder.parent / "CARD.md")
    (folder / "CARD.md").symlink_to(folder.parent / "CARD.md")
    with pytest.raises(IntegrityError, match="is not a file here"):
        Policy.load(folder)


def test_a_hidden_unlisted_file_is_rejected(folder: Path) -> None:
    (folder / ".hidden").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"holds \.hidden"):
        Policy.load(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"format": "to-router-policy"', '{"format": NaN}', "[" * 100_000, '{"a": 1, "a": 1}'],
)
def test_a_manifest_that_is_no_manifest_is_rejected(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ManifestError):
        Policy.load(folder)


def test_a_manifest_beyond_all_measure_is_not_even_read(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(artifact.MOST_MANIFEST_BYTES + 1)
    with pytest.raises(ManifestError, match="larger than"):
        Policy.load(folder)


def test_a_link_instead_of_the_manifest_is_rejected(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")
    with pytest.raises(ManifestError, match="is a link"):
        Policy.load(folder)


@pytest.mark.parametrize(
    ("name", "size"), [("router.safetensors", artifact.MOST_BYTES), ("CARD.md", artifact.MOST_CARD_BYTES)]
)
def test_a_file_beyond_all_measure_is_not_even_read(folder: Path, name: str, size: int) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(size + 1)  # a sparse file
    facts = json.loads((folder / "manifest.json").read_text())
    facts["files"][name]["size"] = size + 1
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(IntegrityError, match=f"at most {size}"):
        Policy.load(folder)


def test_more_files_than_a_policy_has_are_rejected(folder: Path) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    facts["files"] |= {f"f{number}": {"size": 0, "sha256": ""} for number in range(artifact.MOST_FILES)}
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match="lists 10 files"):
        Policy.load(folder)


def test_a_manifest_must_list_weights_and_card(folder: Path) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["files"]["CARD.md"]
    (folder / "CARD.md").unlink()
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match=r"does not list CARD\.md"):
        Policy.load(folder)


@pytest.mark.parametrize("name", ["router.safetensors", "CARD.md"])
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.999])
def test_a_flipped_bit_in_a_listed_file_is_noticed(folder: Path, name: str, where: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(where * len(data))] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="was changed"):
        Policy.load(folder)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves(value[index], (*path, index))


MANIFEST = json.loads((OLD / "manifest.json").read_text())
WRONG = (None, "x", -1, 10**30, True, 0.5, [], {}, [[]], {"x": {}}, "\ud800")


@pytest.mark.parametrize("path", [path for path in leaves(MANIFEST) if path and path[0] != "training"])
def test_any_change_of_a_manifest_is_rejected_or_valid(folder: Path, path: tuple[Any, ...]) -> None:
    for wrong in WRONG:
        facts = json.loads(json.dumps(MANIFEST))
        at = facts
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = wrong
        (folder / "manifest.json").write_text(json.dumps(facts))
        try:
            policy = Policy.load(folder)
        except RouterError:
            continue
        assert policy.policy_id != "1151a5cbde8c"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_manifest_byte_is_rejected_or_changes_the_id(data: st.DataObject) -> None:
    import tempfile

    original = (OLD / "manifest.json").read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    mask = data.draw(st.integers(1, 255))
    changed = original[:at] + bytes([original[at] ^ mask]) + original[at + 1 :]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(OLD, Path(place) / "policy"))
        (folder / "manifest.json").write_bytes(changed)
        try:
            policy = Policy.load(folder)
        except RouterError:
            return
        assert policy.policy_id != artifact.policy_id(original)


def test_the_errors_of_a_folder_are_of_one_family() -> None:
    for kind in (ManifestError, IntegrityError, WeightsError):
        assert issubclass(kind, ArtifactError)
