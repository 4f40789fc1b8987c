"""How a simulated expert behaves: its `args`, and what `user_config` or a request may change in it.

Pure pydantic; knows nothing of Ray. There is no price here: the policy has the prices of experts.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployments.engine_settings import ExpertName, PoolArgs
from deployments.settings import Settings

Rate = Annotated[float, Field(ge=0, le=1)]
Mode = Literal["status", "raise", "hang", "garbage", "half_stream", "stall", "die"]
"""
status        an error response with `status`, in vLLM's form
raise         the replica raises before its first byte
hang          no byte ever comes, the slot stays held until the client leaves
garbage       200 and bytes that are no response of any API
half_stream   the response ends in the middle, without its last event
stall         it begins, then no further byte comes
die           the replica's process ends at once
"""


class Failure(Settings):
    """One way to fail, and how often."""

    mode: Mode
    rate: Rate = 1.0
    """Fraction of the requests."""
    status: Annotated[int, Field(ge=400, le=599)] = 500
    """For mode `status`."""
    after_tokens: Annotated[int, Field(ge=0)] = 3
    """For `half_stream` and `stall`: tokens before the failure."""


class Behaviour(Settings):
    """Times, texts and failures of a simulated engine."""

    ttft_ms: Annotated[float, Field(ge=0, le=600_000)] = 20.0
    """Service time up to the first token, once a slot is free."""
    tokens_per_s: Annotated[float, Field(gt=0)] | None = 200.0
    """Decoding speed of one request; `null` for all at once."""
    slots: Annotated[int, Field(ge=1)] = 16
    """Requests served at a time; the others wait. Capacity is slots over service time."""
    jitter: Rate = 0.0
    """Service times vary evenly by this fraction up and down."""
    tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Length of an answer, where neither `text` nor the request's max_tokens is shorter."""
    text: str | None = None
    """The answer itself, one token per word, after the words that mark it as simulated."""
    echo: bool = False
    """Answer with the request's last text, so that a mixed-up answer shows."""
    sums: Rate | None = None
    """Answer a sum in the query, such as `3 + 4`; this fraction of them correctly, always the same ones."""
    failures: list[Failure] = Field(default_factory=list)

    @model_validator(mode="after")
    def _at_most_all(self) -> "Behaviour":
        if (total := sum(failure.rate for failure in self.failures)) > 1 + 1e-9:
            raise ValueError(f"the rates of failures add up to {total:g}: at most 1")
        if self.echo + (self.text is not None) + (self.sums is not None) > 1:
            raise ValueError("an answer is `text`, an `echo` or the result of `sums`: give one of them")
        return self


class SimulatedArgs(Settings):
    """`args` of an application `expert-<name>` whose expert is simulated."""

    name: ExpertName
    pool: PoolArgs | None = None
    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    """Simulated GPUs of each worker, so that pools fill up as they would."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """More than one: a replica reserves a placement group of so many bundles, as tensor parallelism does."""
    max_model_len: Annotated[int, Field(ge=16)] = 8192
    seed: int = 0
    """Of jitter and failures; every replica draws the same sequence."""
    behaviour: Behaviour = Behaviour()
    """Until `user_config` changes it."""

    @model_validator(mode="after")
    def _bundles_hold_something(self) -> "SimulatedArgs":
        pool = self.pool.resources if self.pool is not None else None
        if self.workers > 1 and not (self.num_cpus or self.num_gpus or pool):
            raise ValueError("several workers need bundles that hold something: give num_cpus or num_gpus")
        return self
