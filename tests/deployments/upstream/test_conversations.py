"""Which expert holds a conversation's prefix: scoped by key, bounded, for a while."""

from deployments.contracts.conversation import Conversation, conversation_of
from deployments.upstream.conversations import KEPT_S, Conversations

HI = [("user", "hi")]
FIRST = conversation_of(HI)
SECOND = conversation_of([*HI, ("assistant", "hello"), ("user", "more")])
THIRD_TURNS = [*HI, ("assistant", "hello"), ("user", "more"), ("assistant", "ok"), ("user", "thanks")]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made(most: int = 9) -> tuple[Conversations, Clock]:
    clock = Clock()
    return Conversations(clock, most), clock


def test_a_later_turn_finds_the_expert_of_the_one_before() -> None:
    known, _ = made()
    known.remember("key", FIRST, "large", 100)
    known.remember("key", SECOND, "small", 150)

    assert known.cached_tokens("key", SECOND) == {"large": 100}
    assert known.cached_tokens("key", conversation_of(THIRD_TURNS)) == {"large": 100, "small": 150}


def test_two_users_who_begin_alike_have_two_conversations() -> None:
    known, _ = made()
    known.remember("one", FIRST, "large", 100)

    assert known.cached_tokens("two", SECOND) == {}
    assert known.cached_tokens("one", FIRST) == {}  # the same first words are no evidence


def test_a_tool_loop_stays_with_its_expert() -> None:
    known, _ = made()
    known.remember("key", FIRST, "large", 100)
    loop = conversation_of([*HI, ("assistant", ""), ("tool", "42")])

    assert known.cached_tokens("key", loop) == {"large": 100}


def test_a_name_outweighs_the_turns() -> None:
    known, _ = made()
    known.remember("key", FIRST.named("chat 1"), "large", 100)

    assert known.cached_tokens("key", conversation_of([("user", "other")]).named("chat 1")) == {"large": 100}
    assert known.cached_tokens("key", SECOND) == {}
    assert known.cached_tokens("other", FIRST.named("chat 1")) == {}


def test_all_turns_have_one_unit() -> None:
    known, _ = made()
    units = []
    for number, turn in enumerate((FIRST, SECOND, conversation_of(THIRD_TURNS))):
        units.append(known.unit("key", turn, f"req-{number}"))
        known.remember("key", turn, "large", 100, units[-1])

    assert units == ["req-0"] * 3
    assert known.unit("key", FIRST, "req-9") == "req-9"  # another conversation that begins alike
    assert known.unit("other", SECOND, "req-9") == "req-9"


def test_a_named_conversation_has_its_unit_on_every_replica() -> None:
    (one, _), (other, _) = made(), made()
    unit = one.unit("key", FIRST.named("chat 1"), "req-1")

    assert other.unit("key", SECOND.named("chat 1"), "req-2") == unit
    assert other.unit("another key", SECOND.named("chat 1"), "req-2") != unit
    assert other.unit("key", SECOND.named("chat 2"), "req-2") != unit


def test_what_is_old_or_too_many_is_forgotten() -> None:
    known, clock = made(most=2)
    known.remember("key", FIRST, "large", 100)
    clock.now += KEPT_S + 1
    assert known.cached_tokens("key", SECOND) == {}
    for number in range(5):
        known.remember("key", Conversation(here=bytes([number + 1])), "large", 1)

    assert len(known) == 2


def test_of_one_conversation_the_last_experts_are_remembered() -> None:
    known, _ = made()
    named = FIRST.named("chat")
    for number in range(6):
        known.remember("key", named, f"expert {number}", number)

    assert list(known.cached_tokens("key", named)) == [f"expert {number}" for number in (2, 3, 4, 5)]
