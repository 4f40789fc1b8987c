"""The chat expert's model: converted once, greedy by default, with an end."""

import json
from pathlib import Path

import pytest

from cluster.pocket import chat_model
from cluster.pocket.chat_model import FOLDER, GENERATION, STAMP, is_up_to_date, main, make_chat_model


def test_a_complete_model_is_not_converted_again() -> None:
    make_chat_model()

    assert not make_chat_model()
    assert is_up_to_date(FOLDER)


def test_answers_are_greedy_and_end_by_default() -> None:
    make_chat_model()
    defaults = json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8"))

    assert defaults == GENERATION
    assert defaults["temperature"] == 0.0
    assert defaults["max_new_tokens"] <= 256


def test_a_folder_without_all_its_files_counts_as_old(tmp_path: Path) -> None:
    make_chat_model()
    stamp = json.loads((FOLDER / STAMP).read_text(encoding="utf-8"))
    (tmp_path / STAMP).write_text(json.dumps(stamp), encoding="utf-8")

    assert not is_up_to_date(tmp_path)


def test_another_file_of_weights_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat_model, "SOURCE_SHA256", "0" * 64)

    assert main(["--force"]) == 2
    assert "install 0.1.2" in capsys.readouterr().err
