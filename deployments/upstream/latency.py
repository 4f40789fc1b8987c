"""Latencies of an expert, learnt from its responses, and the timeouts of attempts that follow from them.

Pure state; one estimate per expert and ingress replica.
"""

from typing import Literal

SMOOTHING = 0.1
"""Weight of the newest observation in the running means."""
TIMEOUT_FACTOR = 8.0
"""An expert may take this many times its usual latency before the next expert is tried…"""
MIN_TIMEOUT_S = {"streaming": 5.0, "non_streaming": 30.0}
"""…but never less than this: short latencies are noisy, and non-streaming responses differ in length."""
MIN_CONNECT_TIMEOUT_S = 3.0
"""A live replica takes a request within milliseconds; this allows for a busy machine."""
TOKENS_FACTOR = 2.0
"""A completion of the most tokens that a request allows may take this many times its expected time."""
MIN_OBSERVATIONS = 20
"""Responses before the learnt timeout replaces the configured one."""

ResponseForm = Literal["streaming", "non_streaming"]
"""What the latency runs to: the first byte of a stream, or the end of a non-streaming response."""


class RunningMean:
    """Running mean and mean deviation of a latency, in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = 0.0
        self.deviation_s = 0.0

    @property
    def timeout_s(self) -> float:
        """The latency above which a response is unusually late."""
        return TIMEOUT_FACTOR * (self.mean_s + 2 * self.deviation_s)

    def observe(self, seconds: float) -> None:
        """Count one latency."""
        self.count += 1
        if self.count == 1:
            self.mean_s = seconds
            return
        self.deviation_s += SMOOTHING * (abs(seconds - self.mean_s) - self.deviation_s)
        self.mean_s += SMOOTHING * (seconds - self.mean_s)


class LatencyEstimate:
    """The usual latencies of one expert, to connect and to respond."""

    def __init__(self) -> None:
        self._responses: dict[ResponseForm, RunningMean] = {
            "streaming": RunningMean(),
            "non_streaming": RunningMean(),
        }
        self._connects = RunningMean()
        self._tokens = RunningMean()
        """Seconds of a non-streaming response for each of its tokens."""

    @property
    def ttft_ms(self) -> float | None:
        """The usual time to a stream's first byte, in milliseconds; `None` before any stream."""
        mean = self._responses["streaming"]
        return mean.mean_s * 1000 if mean.count else None

    @property
    def latency_ms(self) -> float | None:
        """The usual time to the end of a non-streaming response, in milliseconds; `None` before any."""
        mean = self._responses["non_streaming"]
        return mean.mean_s * 1000 if mean.count else None

    def observe(
        self,
        form: ResponseForm,
        seconds: float,
        connected_s: float = 0.0,
        completion_tokens: float | None = None,
    ) -> None:
        """Learn from a response.

        Args:
            form: the form of the response.
            seconds: time to its first byte where it streams, to its end where it does not.
            connected_s: time until a replica took the request.
            completion_tokens: tokens of one completion of a non-streaming response, where they are known.
        """
        self._responses[form].observe(seconds)
        self._connects.observe(connected_s)
        if completion_tokens:
            self._tokens.observe(seconds / completion_tokens)

    def attempt_timeout_s(
        self, form: ResponseForm, configured_s: float, most_tokens: int | None = 0
    ) -> float:
        """Time that an attempt gets before the next expert of the ranking is tried.

        Args:
            form: the form of the response.
            configured_s: the time until enough responses were observed.
            most_tokens: the most tokens of the completion, where the whole response has to come in this
                time; 0 where it does not, `None` where they are unbounded.
        """
        mean = self._responses[form]
        if mean.count < MIN_OBSERVATIONS or most_tokens is None:
            return configured_s
        usual_s = min(configured_s, max(MIN_TIMEOUT_S[form], mean.timeout_s))
        token_s = self._tokens.mean_s + 2 * self._tokens.deviation_s
        return max(usual_s, TOKENS_FACTOR * most_tokens * token_s)

    def connect_timeout_s(self) -> float:
        """Time that a replica gets to take a request before the next expert of the ranking is tried."""
        return max(MIN_CONNECT_TIMEOUT_S, self._connects.timeout_s)
