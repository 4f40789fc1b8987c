"""A vLLM plugin: an engine that waits for its next step gives its processor back.

vLLM's workers look for the next step in a busy loop, and go on for a second after the last one.
On a GPU node that second is cheap and the wake-up is faster; where more engines than cores share a
machine it takes the processor from the engine that has work. vLLM has no setting for it.

vLLM loads this module in every process of an engine (entry point `vllm.general_plugins`); it does
nothing unless `POLL_MS` stands in the environment, which `placement.engine_environment` sets for
engines on a CPU.
"""

import inspect
import logging
import os
import time
from typing import Any

logger = logging.getLogger(__name__)

POLL_MS = "TO_ROUTER_ENGINE_POLL_MS"
"""Environment variable: milliseconds that a waiting worker sleeps at most before it looks again."""


def register() -> None:
    """Put `POLL_MS` in force in this process.

    Raises:
        ValueError: the variable is not a whole number.
    """
    if (said := os.environ.get(POLL_MS)) is None:
        return
    poll_ms = int(said)
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    names = ["self", "timeout_ms"]
    if list(inspect.signature(SpinCondition.wait).parameters) != names:
        logger.warning("this vLLM waits in another way: %s=%s is without effect", POLL_MS, said)
        return
    vllms_own = SpinCondition.wait

    def wait(self: Any, timeout_ms: int | None = None) -> None:
        if time.monotonic() > self.last_read + self.busy_loop_s:
            vllms_own(self, timeout_ms)
        # The writer's notice wakes the reader at once. It may be lost when two follow closely, which
        # is why vLLM spins; here the next look comes soon enough.
        elif self.local_notify_socket in dict(self.poller.poll(timeout=poll_ms)):
            self.local_notify_socket.recv(copy=False)

    SpinCondition.wait = wait
