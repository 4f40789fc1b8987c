"""API keys and their limits, as the configuration in effect has them.

One holder for both: they change together while requests run.
"""

from starlette.requests import Request

from deployments.limits.keys import Caller, KeyRing
from deployments.limits.ledger_client import LedgerClient, Reservation


class Access:
    """The keys that requests need, and the counts of their limits.

    Args:
        keys: the key file; `None` where every request is served.
        ledger: the way to the common counts; `None` where limits are not counted.
    """

    def __init__(self, keys: KeyRing | None = None, ledger: LedgerClient | None = None) -> None:
        self._keys, self._ledger = keys, ledger

    def replace(self, keys: KeyRing | None, ledger: LedgerClient | None) -> None:
        """Put other keys and counts into effect; requests in flight settle with the old ones."""
        self._keys, self._ledger = keys, ledger

    @property
    def requires_key(self) -> bool:
        """Whether requests need a key."""
        return self._keys is not None

    @property
    def error(self) -> str | None:
        """Why the key file's last change is not in effect; `None` when it is."""
        return None if self._keys is None else self._keys.error

    @property
    def ledger_is_away(self) -> bool:
        """Whether the common counts could not be reached last time."""
        return self._ledger is not None and self._ledger.away

    def refresh(self) -> None:
        """Read the key file again if it changed; blocks."""
        if self._keys is not None:
            self._keys.refresh()

    def caller(self, request: Request) -> Caller | None:
        """The key that a request came with; `None` where keys are off.

        Raises:
            NotAuthenticated: it came with none, or an unknown one.
            Unavailable: the key file has not been readable since the start.
        """
        return None if self._keys is None else self._keys.authenticate(request.headers.raw)

    async def reserve(
        self,
        caller: Caller | None,
        tokens: int,
        usd: float,
        completion_usd: float = 0.0,
        *,
        admitted: bool = False,
    ) -> Reservation:
        """Reserve what a request may use at most, of which a part is for completions.

        Args:
            caller: the request's key.
            tokens: the most tokens.
            usd: the most that it can cost.
            completion_usd: the part of it for completions.
            admitted: whether the request itself is admitted already.

        Raises:
            TooMany: a limit of the key is reached.
        """
        if caller is None or self._ledger is None:
            return Reservation(None, None, 0.0)
        return await self._ledger.reserve(caller, tokens, usd, completion_usd, admitted=admitted)
