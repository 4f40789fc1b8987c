"""Endpoints that call no expert: key, limits, admission and metrics as for all others."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response

from deployments.config import IngressArgs
from deployments.contracts.deadlines import Deadline
from deployments.ingress import headers
from deployments.ingress.access import Access
from deployments.ingress.accounting import Account, Accounting
from deployments.ingress.body import read_body
from deployments.ingress.body_budget import BodyBudget
from deployments.ingress.request_ids import client_request_id, request_id
from deployments.limits.admission import AdmissionQueue, Priority, acquire_within
from deployments.limits.keys import key_id

Handler = Callable[[bytes, Account], Awaitable[Response]]
"""Makes the response from a body and the request's account, which has the caller."""


class LimitedEndpoints:
    """Serves requests that cost no tokens within the limits of their keys and of this replica.

    Args:
        args: deadlines of a request and of its body.
        queue: admission to this replica.
        accounting: opens an account for each request.
        access: keys and their limits.
        bodies: the bytes of all bodies in flight.
    """

    def __init__(
        self,
        args: IngressArgs,
        *,
        queue: AdmissionQueue,
        accounting: Accounting,
        access: Access,
        bodies: BodyBudget,
    ) -> None:
        self._args, self._queue, self._accounting, self._access = args, queue, accounting, access
        self._bodies = bodies

    async def serve(self, request: Request, kind: str, max_bytes: int, handler: Handler) -> Response:
        """Return a handler's response, counted as one request of its key.

        Raises:
            ApiError: no key, a limit, a full queue, or the handler's own.
        """
        account = self._accounting.open(
            request_id(request), kind, headers.trace_context(request), client_request_id(request)
        )
        with account.closed_on_error(), ExitStack() as held:
            account.caller = caller = self._access.caller(request)
            self._queue.reject_early(key_id(caller))
            bytes_ = self._bodies.hold(account.request_id)
            held.callback(bytes_.release)
            body = await read_body(request, max_bytes, self._args.upload_timeout_s, bytes_)
            reservation = await self._access.reserve(caller, 0, 0.0)
            held.callback(reservation.settle, 0, 0.0)
            deadline = Deadline(self._args.request_timeout_s, self._accounting.clock, account.started)
            priority: Priority = "batch" if caller is not None and caller.batch else "interactive"
            await acquire_within(deadline, (self._queue,), priority, key_id(caller))
            held.callback(self._queue.release, 1, key_id(caller))
            response = await handler(body, account)
        account.completed(response.status_code)
        response.headers["x-request-id"] = account.request_id
        return response
