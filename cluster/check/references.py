"""References between the parts of a serve_config.yaml: ingress, experts, policy, prices."""

import os
from collections.abc import Generator, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from cluster.check.finding import Finding
from cluster.check.schema import model_errors
from cluster.check.variants import check_variants
from cluster.packing import BUILD_APP, BUILD_EXPERT, BUILD_SIMULATED
from deployments.config import IngressConfig, RouterConfig
from deployments.last_good import LastGood
from deployments.settings import resolve
from router.errors import RouterError


def check_references(applications: list[dict[str, Any]], *, policy: bool) -> Iterator[Finding]:
    """Find the errors that only the whole file shows.

    Args:
        applications: every application of the file.
        policy: false if the policy's folder is not on this machine.
    """
    yield from _duplicates(applications)
    main = next((app for app in applications if app.get("import_path") == BUILD_APP), None)
    if main is None:
        yield Finding("error", "applications", f"none is built by {BUILD_APP}: there is no ingress")
        return
    configs = {d.get("name"): d.get("user_config") for d in main.get("deployments") or []}
    where = str(main.get("name"))
    ingress = yield from _config(IngressConfig, configs.get("Ingress"), f"{where}.Ingress.user_config")
    router = yield from _config(RouterConfig, configs.get("Router"), f"{where}.Router.user_config")
    if ingress is not None:
        yield from _experts(ingress, applications, f"{where}.Ingress.user_config.experts")
        yield from check_variants(ingress, applications, f"{where}.Ingress.user_config.experts")
    if router is not None and policy:
        in_effect = yield from _policy(router, ingress, f"{where}.Router.user_config")
        yield from _beside(router, in_effect, ingress, where)
    yield from _date(configs.get("Router"), f"{where}.Router.user_config")


def _duplicates(applications: list[dict[str, Any]]) -> Iterator[Finding]:
    for key in ("name", "route_prefix"):
        values = [app.get(key) for app in applications if app.get(key) is not None]
        for value in sorted({str(v) for v in values if values.count(v) > 1}):
            yield Finding("error", f"applications[].{key}", f"{value!r} is duplicated")


def _config(model: type[BaseModel], data: Any, where: str) -> Generator[Finding, None, Any]:
    """Yield the findings of a user_config and return the parsed value, or `None`."""
    if data is None:
        yield Finding("error", where, "is missing")
        return None
    errors = list(model_errors(model, data, where))
    yield from errors
    return None if errors else model.model_validate(data)


def _experts(config: Any, applications: list[dict[str, Any]], key: str) -> Iterator[Finding]:
    apps = {app.get("name"): app for app in applications}
    experts = {n for n, a in apps.items() if a.get("import_path") in {BUILD_EXPERT, BUILD_SIMULATED}}
    referenced = [(target.app, name) for name, target in config.experts.items() if target.app is not None]
    for app, name in referenced:
        if app not in apps:
            yield Finding(
                "error", f"{key}.{name}.app", f"there is no application {app!r}: add it, or remove the expert"
            )
        elif config.experts[name].variant is not None:
            continue  # it has a name of its own
        elif (called := (apps[app].get("args") or {}).get("name", name)) != name:
            message = f"{app!r} serves itself as {called!r}: the two names must be equal"
            yield Finding("error", f"{key}.{name}", message)
    for app in experts - {app for app, _ in referenced}:
        yield Finding(
            "warning", str(app), f"is an application without an expert: add it under {key}, or remove it"
        )
    for name, target in config.experts.items():
        if target.url and not target.url.rstrip("/").endswith("/v1"):
            message = f"{target.url!r} does not end in /v1: requests go to …/chat/completions below it"
            yield Finding("warning", f"{key}.{name}.url", message)
        if target.key_env and target.key_env not in os.environ:
            yield Finding(
                "warning", f"{key}.{name}.key_env", f"{target.key_env} is not set in this environment"
            )


def _date(config: Any, key: str) -> Iterator[Finding]:
    canary = config.get("canary") if isinstance(config, dict) else None
    if isinstance(canary, dict) and isinstance(canary.get("until"), date):
        yield Finding("error", f"{key}.canary.until", "is a date of YAML, which Serve cannot send: quote it")


def _beside(config: Any, in_effect: Any, ingress: Any, app: str) -> Iterator[Finding]:
    """The policies beside the one in effect, and whether the canary among them is rolled back."""
    key = f"{app}.Router.user_config"
    if config.shadow is not None:
        yield from _loaded(config.shadow, ingress, f"{key}.shadow")
    if config.canary is None:
        return
    canary = yield from _loaded(config.canary.policy, ingress, f"{key}.canary.policy")
    path = Path(quote(app, safe=""), "Router")
    saved = LastGood(lambda: path).rollback()
    if canary is None or in_effect is None or saved is None:
        return
    if saved.canary == config.canary.identity(in_effect.policy_id, canary.policy_id):
        yield Finding(
            "warning",
            f"{key}.canary",
            f"policy {canary.policy_id} is rolled back since {saved.at} and serves no request: {saved.why}",
        )


def _loaded(folder: str, ingress: Any, key: str) -> Generator[Finding, None, Any]:
    """Yield the findings of a policy's folder and return the policy, or `None`."""
    from router.policy import Policy

    try:
        policy = Policy.load(resolve(folder))
    except RouterError as error:
        yield Finding("error", key, f"{folder!r} cannot be served: {error}")
        return None
    if ingress is not None and (missing := sorted(set(ingress.experts) - set(policy.pool.names))):
        message = f"policy {policy.policy_id} does not cover the experts {', '.join(missing)}: retrain it"
        yield Finding("error", key, message)
    return policy


def _policy(config: Any, ingress: Any, key: str) -> Generator[Finding, None, Any]:
    """Yield the findings of the policy in effect and return it, or `None`."""
    if config.policy is None:  # made of priors when the graph starts
        return None
    policy = yield from _loaded(config.policy, ingress, f"{key}.policy")
    if policy is None:
        return None
    if unknown := sorted(set(config.prices) - set(policy.pool.names)):
        yield Finding(
            "error", f"{key}.prices.{unknown[0]}", f"policy {policy.policy_id} does not score this expert"
        )
    unpriced = [e.name for e in policy.pool if e.price is None and e.name not in config.prices]
    if unpriced and len(unpriced) < len(policy.pool):
        yield Finding(
            "warning",
            f"{key}.prices",
            f"{', '.join(unpriced)} has no price and counts as the most expensive",
        )
    return policy
