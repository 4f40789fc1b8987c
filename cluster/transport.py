"""The environment of the fast transport, read from transport.env."""

from pathlib import Path

TRANSPORT_ENV = Path(__file__).with_name("transport.env")
HAPROXY = Path(__file__).with_name("haproxy")
"""Starts the bundled HAProxy with changes to Serve's configuration; the file has the reasons."""
AUTH_MODE = "RAY_AUTH_MODE"
"""Whether Ray requires its token; KubeRay sets it itself."""
HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
"""Seconds after which a replaced HAProxy ends the streams that are still open."""
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Names the middleware around Serve's own HTTP server, needed in both transports."""


def transport_flags(file: Path = TRANSPORT_ENV) -> dict[str, str]:
    """Read the environment variables of the fast transport."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
