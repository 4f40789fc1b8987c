"""The text that a policy reads of a conversation.

The last message that a human wrote decides, without the blocks that a harness put around it and without
greetings and thanks at its ends. What
follows it (tool calls, their results, reminders) is not read, so the decision is the same at every step
of a tool loop. Earlier messages of the human count only where this one is not clear without them, and little;
the system prompt and the model's own turns never do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.contracts.harness_blocks import HARNESS_TAGS, human_words
from deployments.contracts.message_words import is_self_contained, without_small_talk

QUERY_CHARACTERS = 8_000
"""More than any sentence encoder's window: what lies beyond would be cut there."""
CONTEXT_CHARACTERS = 200
"""Of earlier messages, for one that is not clear without them."""
CONTEXT_MESSAGES = 3
"""Earlier messages that are looked at: the nearest ones, up to one that is self-contained."""
SEARCHED_CHARACTERS = 1_000_000
"""Of user turns that are searched for a human's words; further back is nothing of this exchange."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a policy reads, and where it is."""

    text: str
    turns: int
    """Turns up to and including the message; those after it are a tool loop's."""


def read_query(turns: Sequence[tuple[str, str]], harness_tags: frozenset[str] = HARNESS_TAGS) -> Query:
    """The query of a conversation.

    Without a human's words it is the last user turn as it is, else the last turn.

    Args:
        turns: (role, text) of each turn, in order.
        harness_tags: tags of blocks that are not read, as `harness_blocks.plain` writes them.
    """
    messages: list[str] = []
    count, left = 0, SEARCHED_CHARACTERS
    for index in reversed(range(len(turns))):
        role, text = turns[index]
        if role != "user":
            continue
        if left <= 0 or len(messages) > CONTEXT_MESSAGES:
            break
        left -= len(text)
        words = without_small_talk(human_words(text, harness_tags))
        if not words:
            continue
        count = count or index + 1
        messages.append(words)
        if is_self_contained(words):
            break
    if not messages:
        users = (index for index in reversed(range(len(turns))) if turns[index][0] == "user")
        last = next(users, len(turns) - 1)
        return Query("" if last < 0 else turns[last][1][:QUERY_CHARACTERS], last + 1)
    message, *context = messages
    parts = [message[:QUERY_CHARACTERS], "\n".join(context)[:CONTEXT_CHARACTERS]]
    return Query("\n".join(part for part in parts if part), count)
