"""Which conversation a request continues, by its turns alone or by its client's name for it.

Pure: texts in, digests out. A digest says nothing of the texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Conversation:
    """How a request and the next one of its conversation recognise each other."""

    here: bytes = b""
    """Digest of the turns up to and including the last user turn; empty where there is none."""
    before: bytes = b""
    """Digest of the turns up to the user turn before that; empty at the first one."""
    in_tool_loop: bool = False
    """Turns follow the last user turn: `here` is known from before."""
    name: bytes = b""
    """Digest of the client's own name of it; empty without one."""

    def named(self, name: str | None) -> "Conversation":
        """The same under a name that came beside the body; one in the body comes first."""
        if self.name or not name:
            return self
        return Conversation(self.here, self.before, self.in_tool_loop, digest_of_name(name))


UNKNOWN = Conversation()


def conversation_of(turns: Sequence[tuple[str, str]], name: object = None) -> Conversation:
    """The conversation of a request.

    Args:
        turns: (role, text) of each, in order.
        name: the client's own name of it; what is no text is none.
    """
    own = digest_of_name(name) if isinstance(name, str) and name else b""
    users = [index for index, (role, _) in enumerate(turns) if role == "user"]
    if not users:
        return Conversation(name=own)
    state = blake2b(digest_size=DIGEST_BYTES)
    before = b""
    if len(users) > 1:
        _add(state, turns[: users[-2] + 1])
        before = state.digest()
        _add(state, turns[users[-2] + 1 : users[-1] + 1])
    else:
        _add(state, turns[: users[-1] + 1])
    return Conversation(state.digest(), before, users[-1] + 1 < len(turns), own)


def digest_of_name(name: str) -> bytes:
    """A name as it is kept."""
    return blake2b(name.encode("utf-8", "replace"), digest_size=DIGEST_BYTES, person=b"name").digest()


def _add(state: "blake2b", turns: Iterable[tuple[str, str]]) -> None:
    for role, text in turns:
        for part in (role, text):
            data = part.encode("utf-8", "replace")
            # With its length, so that no two lists of turns are one row of bytes.
            state.update(len(data).to_bytes(8, "big"))
            state.update(data)
