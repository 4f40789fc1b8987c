"""Which messages are clear without those before them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.pocket.questions import questions
from deployments.contracts.message_words import is_self_contained, without_small_talk


@pytest.mark.parametrize(
    "message",
    [
        "What is 17 plus 25?",
        "12 * 12",
        "reverse lemon",
        "Peru's capital?",
        "Who is Einstein?",
        "hello",
        "Thank you very much!",
        "Guten Morgen!",
        "What is the capital of France, and how many people live in it?",
        "法国的首都是哪里？",
        "Wie heißt die Hauptstadt von Peru?",
        "My dog ate a grape an hour ago and now it looks tired, should I call a vet?",
    ],
)
def test_it_is_self_contained(message: str) -> None:
    assert is_self_contained(message)


@pytest.mark.parametrize(
    "message",
    [
        "And of Spain?",
        "why?",
        "yes",
        "go on",
        "Write it backwards",
        "In Spanish, please",
        "and 18?",
        "Und Peru?",
    ],
)
def test_it_needs_what_came_before(message: str) -> None:
    assert not is_self_contained(message)


def test_pocket_queries_are_self_contained() -> None:
    drawn = questions("heldout", n=300, seed=3)

    assert [question.query for question in drawn if not is_self_contained(question.query)] == []


@pytest.mark.parametrize(
    "message",
    [
        "Hi! What is 17 plus 25? Thank you!",
        "Hello there, what is 17 plus 25?",
        "Good morning! I hope you are well. What is 17 plus 25? Thank you very much!",
        "How are you doing today? What is 17 plus 25?\nThanks in advance for your help!\nHave a nice day!",
        "Guten Tag, what is 17 plus 25? Vielen Dank!",
        "Hey, hope you're having a great day! What is 17 plus 25? Thanks so much, have a good one!",
        "Hello! I was wondering if you could help me with something. What is 17 plus 25? Thanks!! :)",
        "Hi there. Nice weather today, isn't it? What is 17 plus 25? By the way, I love your answers.",
        "Hi, how are you? I'm doing fine. Quick question: what is 17 plus 25? Cheers",
    ],
)
def test_small_talk_around_a_message_is_left_out(message: str) -> None:
    assert without_small_talk(message).rstrip("?").lower() == "what is 17 plus 25"


@pytest.mark.parametrize(
    "message",
    [
        "Hi!",
        "Good morning! How are you?",
        "What day is today? I have to plan.",
        "What is 17 plus 25?",
        "Well 3.5 and 4.5 make what?",
        "",
    ],
)
def test_other_messages_are_kept_as_they_are(message: str) -> None:
    assert without_small_talk(message) == message


def test_pocket_queries_have_no_small_talk() -> None:
    drawn = [question.query for question in questions("heldout", n=300, seed=3)]

    assert [without_small_talk(query) for query in drawn] == drawn


@given(st.text(st.sampled_from("hi, thanks.!?\n 5+x"), max_size=60))
def test_what_is_left_is_a_part_of_the_message(message: str) -> None:
    assert without_small_talk(message) in message
