"""Which conversation a request continues, by its turns alone or by its client's name for it.

Pure: texts in, digests out. A digest says nothing of the texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    root: bytes = b""
    """Digest of the turns up to the first user turn, at a later one; empty at the first."""

    def named(self, name: str | None) -> "Conversation":
        """The same under a name that came beside the body; one in the body comes first."""
        if self.name or not name:
            return self
        return replace(self, name=digest_of_name(name))

    def replica_key(self, owner: str) -> bytes | None:
        """What is the same for all later turns, for the choice of a replica; `None` for a first turn.

        Many first turns are alike, and a conversation has no second one more often than not.

        Args:
            owner: the id of the request's key: no key sees where another one's requests go.
        """
        if not (shared := self.name or self.root):
            return None
        state = blake2b(shared, key=owner.encode()[:64], digest_size=DIGEST_BYTES)
        return state.hexdigest().encode()


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
    digests, at = [], 0
    # Of the first user turn, of the last but one, and of the last.
    for user in sorted({users[0], *users[-2:]}):
        _add(state, turns[at : user + 1])
        digests.append(state.digest())
        at = user + 1
    later = len(users) > 1
    return Conversation(
        digests[-1],
        digests[-2] if later else b"",
        at < len(turns),
        own,
        digests[0] if later else b"",
    )


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
