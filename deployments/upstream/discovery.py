"""What Serve's controller says of the experts' applications, and what that means for the ingress.

Reads the payload of Serve's REST API as the controller gives it. `serve.status()` asks for the same
and then builds Serve's own classes of it, which pickle each deployment's functions anew: tens of
milliseconds of a processor, every second, in every ingress replica.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.serve import context

from deployments.upstream.registry import ExpertState

COMING = ("STARTING", "UPDATING", "RECOVERING")
LONGEST_WHY = 400


def applications() -> Mapping[str, Any]:
    """Every application by name, as `GET /api/serve/applications/` shows it; blocks.

    Raises:
        RayServeException: there is no controller to ask.
        RayError: it does not answer.
    """
    found: Mapping[str, Any] = context._get_global_client().get_serve_details()["applications"]
    return found


def see(state: ExpertState, application: Mapping[str, Any] | None, app: str) -> None:
    """Put what is said of an expert's application into its state."""
    if application is None:
        state.running, state.scaled_to_zero = 0, False
        state.starting = state.stopping = 0
        state.phase, state.context_window = "", None
        state.why_not_ready = f"application {app!r} is not deployed"
        return
    deployments = application.get("deployments", {}).values()
    replicas = Counter(replica["state"] for d in deployments for replica in d.get("replicas", ()))
    state.running = replicas["RUNNING"]
    state.starting = sum(replicas[phase] for phase in COMING)
    state.stopping = replicas["STOPPING"]
    phase = application["status"]
    if phase != state.phase:
        state.phase, state.window_is_stale = phase, True
    told = "; ".join(filter(None, (application.get("message"), *(d.get("message") for d in deployments))))
    state.scaled_to_zero = state.running == 0 and phase == "RUNNING"
    state.why_not_ready = (
        None
        if state.running or state.scaled_to_zero
        else f"{phase.lower()}: {told}"[:LONGEST_WHY].rstrip(": ")
    )
