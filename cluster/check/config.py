"""`to-router check`: the errors of a serve_config.yaml before a deploy, in plain words.

Reads the file and the files that it names; starts nothing. Without it, Ray drops an unknown key silently,
or waits forever for a node that does not exist. `--cluster` and `--kuberay` compare it with nodes too.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.check.applications import check_application
from cluster.check.document import read, shape
from cluster.check.finding import Finding
from cluster.check.known_keys import other_vllm, unread_sources
from cluster.check.manifest import check_manifest
from cluster.check.nodes import DASHBOARD, check_counts, check_fit, cluster_nodes
from cluster.check.numbers import HTTP, wrong_numbers
from cluster.check.references import check_references
from cluster.check.schema import unknown_keys
from cluster.ingress import (
    is_exposed,
    key_file,
    longest_response_s,
    request_timeout_s,
    serves_anonymous,
)
from cluster.packing import BUILD_EXPERT, demands
from cluster.transport import HARD_STOP, transport_flags


def check_file(
    file: Path, *, cluster: str | None = None, kuberay: Path | None = None, policy: bool = True
) -> list[Finding]:
    """Return every finding on a configuration, errors first.

    Args:
        file: the configuration.
        cluster: address of a running cluster's dashboard, to compare the pools with its nodes.
        kuberay: a file with a RayService, to compare the pools with its worker groups.
        policy: false if the policy's folder is not on this machine, but where the router will run.

    Raises:
        ClusterUnreachable: there is no dashboard at `cluster`.
        ManifestUnreadable: `kuberay` holds no RayService.
    """
    try:
        data, findings = read(file.read_text(encoding="utf-8"))
    except OSError as error:
        return [Finding("error", str(file), f"cannot be read: {error.strerror}")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [Finding("error", str(file), f"is not YAML: {' '.join(str(error).split())}")]
    findings = findings or list(shape(data))
    if findings:
        return findings
    findings = list(_check(data, policy=policy))
    if (cluster or kuberay) and not any(finding.is_error for finding in findings):
        needed = demands(data)
        if cluster:
            nodes = cluster_nodes(cluster)
            findings += check_fit(needed, nodes, where=cluster, more_may_join=True)
            findings += check_counts(data, needed, nodes, where=cluster)
        if kuberay:
            findings += check_manifest(data, needed, kuberay)
    return sorted(findings, key=lambda finding: finding.level)


def _check(data: Mapping[str, Any], *, policy: bool) -> Iterator[Finding]:
    yield from unknown_keys(data, "deploy", "")
    http = data.get("http_options") or {}
    yield from unknown_keys(http, "http", "http_options")
    if "host" not in http:
        yield Finding(
            "warning", "http_options.host", "is missing: the fast transport then binds every interface"
        )
    yield from wrong_numbers(http, HTTP, "http_options")
    applications = data["applications"]
    has_experts = any(app.get("import_path") == BUILD_EXPERT for app in applications)
    yield from unread_sources(experts=has_experts)
    if has_experts:
        yield from other_vllm()
    for index, app in enumerate(applications):
        where = f"applications[{index}]" if "name" not in app else f"{app['name']}"
        yield from check_application(app, where, longest_s=request_timeout_s(data))
    hard_stop = float(transport_flags()[HARD_STOP])
    if longest_response_s(data) > hard_stop:
        message = (
            f"with 30 s more it exceeds {HARD_STOP}={hard_stop:g} of cluster/transport.env, after which "
            "HAProxy cuts streams: raise it there for machines of your own; `make run` and `render` do"
        )
        yield Finding("warning", "args.ingress.request_timeout_s", message)
    anonymous = key_file(data) is None and not serves_anonymous(data)
    if is_exposed(http.get("host")) and anonymous:
        message = f"is missing: everyone who reaches {http.get('host') or 'this machine'} can use the experts"
        yield Finding("warning", "Ingress.user_config.keys", message)
    yield from check_references(applications, policy=policy)


def add_command(commands: Any) -> None:
    """Register `to-router check`."""
    command = commands.add_parser("check", help="show the errors of a serve_config.yaml before a deploy")
    command.add_argument("config", type=Path, help="the serve_config.yaml")
    command.add_argument(
        "--cluster",
        nargs="?",
        const=DASHBOARD,
        metavar="ADDRESS",
        help="compare it with the nodes of a running cluster",
    )
    command.add_argument("--kuberay", type=Path, metavar="FILE", help="compare it with a RayService's groups")
    command.add_argument(
        "--no-policy", action="store_true", help="skip the policy, whose folder is on another machine"
    )
    command.add_argument("--json", action="store_true", help="print JSON for programs")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    findings = check_file(
        options.config, cluster=options.cluster, kuberay=options.kuberay, policy=not options.no_policy
    )
    if options.json:
        rows = [{"level": f.level, "key": f.key, "message": f.message} for f in findings]
        print(json.dumps({"ok": not any(f.is_error for f in findings), "findings": rows}, indent=2))
    else:
        for finding in findings:
            print(finding, file=sys.stderr)
        if not findings:
            print(f"{options.config}: no errors")
    return 2 if any(finding.is_error for finding in findings) else 0
