"""Requests that wait for a slot, in an order that is fair to the API keys that they came with.

Pure; knows neither slots nor time.
"""

import itertools
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

MOST_OWNERS = 1024
"""Owners of which the last turn is known."""
_turns = itertools.count(1)


class Owned(Protocol):
    """A waiting request."""

    owner: str
    """The id of its key."""
    number: int
    """Its position among all that arrived."""


T = TypeVar("T", bound=Owned)


class FairQueue(Generic[T]):
    """A queue for each owner; next is the one with the fewest slots, of equal ones the longest unserved.

    Args:
        held: owner → slots that it holds.
    """

    def __init__(self, held: Mapping[str, int]) -> None:
        self._held = held
        self._queues: dict[str, deque[T]] = {}
        self._served: OrderedDict[str, int] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, waiter: T) -> None:
        """Let a request wait behind the others of its owner."""
        self._queues.setdefault(waiter.owner, deque()).append(waiter)
        self._size += 1

    def remove(self, waiter: T) -> None:
        """Let a request wait no more, if it does."""
        queue = self._queues.get(waiter.owner, deque())
        if waiter in queue:
            queue.remove(waiter)
            self._taken(waiter.owner)

    def next(self) -> T:
        """Take the request that is next."""
        owner = min(self._queues, key=self._rank)
        waiter = self._queues[owner].popleft()
        self._served[owner] = next(_turns)
        self._served.move_to_end(owner)
        if len(self._served) > MOST_OWNERS:
            self._served.popitem(last=False)
        self._taken(owner)
        return waiter

    def displaces(self, owner: str) -> bool:
        """Whether a request of this owner displaces one of an owner that has more of them."""
        longest = max((len(queue) for queue in self._queues.values()), default=0)
        return longest > self.waiting_of(owner) + 1

    def displace(self) -> T:
        """Take the last request of the owner with the most."""
        owner = max(self._queues, key=lambda name: len(self._queues[name]))
        waiter = self._queues[owner].pop()
        self._taken(owner)
        return waiter

    def waiting_of(self, owner: str) -> int:
        """Return the number of an owner's requests."""
        return len(self._queues.get(owner, ()))

    def ahead_of(self, owner: str) -> int:
        """Return about how many requests come before a new one: its owner's, and as many of each other's."""
        own = self.waiting_of(owner)
        return own + sum(min(len(q), own + 1) for name, q in self._queues.items() if name != owner)

    def _rank(self, owner: str) -> tuple[int, int, int]:
        return self._held.get(owner, 0), self._served.get(owner, 0), self._queues[owner][0].number

    def _taken(self, owner: str) -> None:
        self._size -= 1
        if not self._queues[owner]:
            del self._queues[owner]
