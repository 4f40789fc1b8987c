"""What is known of a conversation's turns before: experts with its prefix, its unit of draws and canaries.

Bounded, of this replica alone. Holds digests and numbers, no text. Scoped by key: no key learns what
another one's conversations are.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployments.contracts.conversation import Conversation, digest_of_name

MOST = 20_000
"""Conversations that are remembered; the one unused for longest leaves first."""
KEPT_S = 600.0
"""An engine has given the space of a prefix to others by then."""
MOST_EXPERTS = 4
"""Experts of one conversation that are remembered, the last ones."""

_Key = tuple[str, bytes]


@dataclass(slots=True)
class _Held:
    at: float
    tokens: dict[str, int] = field(default_factory=dict)
    """Expert → tokens of the prompt that it saw last; the latest expert comes last."""
    unit: str = ""


class Conversations:
    """Expert and prompt length of recent conversations.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._held: OrderedDict[_Key, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def cached_tokens(self, owner: str, conversation: Conversation) -> Mapping[str, int]:
        """Expert → tokens that it holds of what a request continues; empty for a new conversation.

        Args:
            owner: the id of the request's key.
            conversation: what it continues.
        """
        held = self._find(owner, conversation)
        return {} if held is None else dict(held.tokens)

    def unit(self, owner: str, conversation: Conversation, request_id: str) -> str:
        """What draws and canaries are decided for, the same for all turns of a conversation.

        By the client's name for it; without one, the id of the first turn's request, as far as this replica
        had the turn before.

        Args:
            owner: the id of the request's key.
            conversation: what it continues.
            request_id: the request's own id, for a new conversation.
        """
        if conversation.name:
            return digest_of_name(f"{owner}\0{conversation.name.hex()}").hex()
        held = self._find(owner, conversation)
        return request_id if held is None else held.unit or request_id

    def remember(
        self, owner: str, conversation: Conversation, expert: str, tokens: int, unit: str = ""
    ) -> None:
        """Note that an expert responds to a request.

        Args:
            owner: the id of the request's key.
            conversation: the request's.
            expert: the expert.
            tokens: of the whole prompt.
            unit: as `unit` returned it.
        """
        key = (owner, conversation.name or conversation.here)
        if not key[1]:
            return
        held = self._find(owner, conversation)
        known = {} if held is None else dict(held.tokens)
        known.pop(expert, None)
        known[expert] = tokens
        while len(known) > MOST_EXPERTS:
            del known[next(iter(known))]
        self._held[key] = _Held(self._clock(), known, unit)
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def _find(self, owner: str, conversation: Conversation) -> _Held | None:
        # The digest of the first turn is no evidence: many conversations begin alike.
        digests = [conversation.name]
        if not conversation.name:
            digests = [conversation.here] if conversation.in_tool_loop else []
            digests.append(conversation.before)
        for digest in digests:
            held = self._held.get((owner, digest)) if digest else None
            if held is not None and self._clock() - held.at <= KEPT_S:
                return held
        return None
