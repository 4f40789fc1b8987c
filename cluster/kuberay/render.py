"""`to-router render kuberay`: the manifest of a configuration, checked before it is written.

Writes to standard output, or to a file atomically; nothing if the configuration has errors.
Does not check the policy, which is on the machines where the router will run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from cluster.check.config import check_file
from cluster.ingress import key_file
from cluster.kuberay.rayservice import manifest, read_config, render
from cluster.kuberay.settings import read_settings
from cluster.transport import transport_flags
from router.files import write_atomically

ANONYMOUS = (
    "error: Ingress.user_config.keys: is missing, and pods listen on every interface: everyone who reaches "
    "them could use the experts; add `keys`, or render with --allow-anonymous"
)


def add_command(commands: Any) -> None:
    """Register `to-router render`."""
    command = commands.add_parser("render", help="write the Kubernetes manifest of a serve_config.yaml")
    command.add_argument("target", choices=("kuberay",), help="the kind of manifest")
    command.add_argument("config", type=Path, help="the serve_config.yaml")
    command.add_argument("--settings", type=Path, help="image, pod sizes, storage; see docs/deploy.md")
    command.add_argument(
        "--allow-anonymous", action="store_true", help="render a configuration without API keys nevertheless"
    )
    command.add_argument("--out", type=Path, help="a file, instead of standard output")
    command.set_defaults(run=_run)


def rendered(config: Path, settings: Path | None = None) -> str:
    """Return the manifest of a configuration without errors.

    Raises:
        BadRenderSettings: the settings do not fit the configuration.
    """
    objects = render(read_config(config), read_settings(settings), transport_flags())
    return manifest(objects, config.name)


def _run(options: argparse.Namespace) -> int:
    errors = [finding for finding in check_file(options.config, policy=False) if finding.is_error]
    if errors:
        for finding in errors:
            print(finding, file=sys.stderr)
        return 2
    if key_file(read_config(options.config)) is None and not options.allow_anonymous:
        print(ANONYMOUS, file=sys.stderr)
        return 2
    text = rendered(options.config, options.settings)
    if options.out is None:
        print(text, end="")
        return 0
    write_atomically(options.out, text)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0
