"""A human's words among the blocks of harnesses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.contracts.harness_blocks import (
    HARNESS_TAGS,
    KNOWN_TAGS,
    MESSAGE_TAGS,
    MOST_CHARACTERS,
    human_words,
    plain,
)

DOCS = Path(__file__).resolve().parents[3] / "docs" / "routing.md"
SUM = "What is 17 plus 25?"


@pytest.mark.parametrize("tag", KNOWN_TAGS)
def test_a_known_block_is_left_out(tag: str) -> None:
    assert human_words(f"<{tag}>\nother words\n</{tag}>\n{SUM}") == SUM


@pytest.mark.parametrize(
    "text",
    [
        f"{SUM}\n<environmentDetails>files</environmentDetails>",
        f"<CONTEXT source='x'>files</CONTEXT>{SUM}",
        f"<context><context>a</context>b</context>{SUM}",
        f"<user_info>Linux</user_info>\n<user_query>\n{SUM}\n</user_query>\nanswer briefly",
        f"<task>{SUM}</task><environment_details><task>other</task></environment_details>",
        f"# Context from my IDE setup:\n## Open tabs:\n- a.py\n\n## My request for Codex:\n{SUM}",
        f"<attachment id='1'/>{SUM}",
    ],
)
def test_only_the_humans_words_remain(text: str) -> None:
    assert human_words(text) == SUM


@pytest.mark.parametrize(
    "text",
    [
        "What does <context> mean in JSX?",
        "a < b and b > c",
        "Put the result in <answer>…</answer>.",
        "Is <b>bold</b> right?",
        "</context> closes nothing",
    ],
)
def test_other_text_is_kept_as_it_is(text: str) -> None:
    assert human_words(text) == text


def test_a_tag_within_a_sentence_is_no_wrapper() -> None:
    text = "Explain what <task>x</task> does in this file."

    assert human_words(text) == text


def test_a_harness_that_wrote_everything_leaves_nothing() -> None:
    assert human_words("<system-reminder>a</system-reminder>\n\n<context>b</context>") == ""
    assert human_words("[Request interrupted by user]") == ""


def test_the_list_of_tags_can_be_changed() -> None:
    text = f"<team_notes>a</team_notes><context>b</context>{SUM}"

    read = human_words(text, (HARNESS_TAGS | {plain("team-notes")}) - {"context"})

    assert read == f"<context>b</context>{SUM}"


def test_of_a_long_text_both_ends_are_read() -> None:
    files = f"<attached_files>{'x' * 3 * MOST_CHARACTERS}</attached_files>"

    assert human_words(f"{files}\n<user_query>{SUM}</user_query>") == SUM


def test_every_known_tag_is_documented() -> None:
    documented = DOCS.read_text(encoding="utf-8")

    assert [tag for tag in (*KNOWN_TAGS, *MESSAGE_TAGS) if f"`{tag}`" not in documented] == []


@given(st.lists(st.sampled_from(["<context>", "</context>", "<task>", "</task>", "<a", ">", "x", "\n"])))
def test_any_mixture_of_tags_is_read(parts: list[str]) -> None:
    text = "".join(parts)

    words = human_words(text)

    assert set(words) <= set(text)
    assert len(words) <= len(text)
