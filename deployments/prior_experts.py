"""The experts of a graph's configuration as plain values for a prior: models, prices, context windows.

Knows neither Ray nor where the configuration comes from.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from deployments.config import IngressConfig, RouterConfig
from deployments.engine_settings import ExpertArgs
from deployments.settings import resolve
from router.errors import InputError
from router.experts import ExpertProfile, Price
from router.priors.shape import config_of
from router.priors.start import StartExpert
from router.validation import explain


def experts_of_config(config: Mapping[str, Any], where: str) -> list[StartExpert]:
    """The experts of a configuration, in the order of the ingress' `experts`.

    Raises:
        InputError: it has no ingress with experts, or a setting is invalid.
    """
    applications = config.get("applications")
    if not isinstance(applications, list):
        raise InputError(f"{where} holds no list `applications`: is it a serve_config.yaml?")
    models = _models(applications, where)
    ingress = _user_config(applications, "Ingress")
    router = _user_config(applications, "Router")
    try:
        targets = IngressConfig.model_validate(ingress or {}).experts
        prices = RouterConfig.model_validate(router or {}).prices
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, 'user_config')}") from error
    found = []
    for name, target in targets.items():
        args = models.get(target.app or "")
        engine = args.engine if args is not None else {}
        window = target.context_window or engine.get("max_model_len")
        price = prices.get(name)
        model = args.model if args is not None else target.model or name
        profile = ExpertProfile(
            name,
            None if price is None else Price(price.input, price.output),
            window if isinstance(window, int) else None,
            frozenset(target.capabilities),
        )
        found.append(StartExpert(profile, model, config_of(resolve(model)) if args is not None else None))
    return found


def _models(applications: list[Any], where: str) -> dict[str, ExpertArgs]:
    """Application → its arguments, for the applications of experts."""
    found = {}
    for application in applications:
        args = application.get("args") if isinstance(application, Mapping) else None
        if isinstance(args, Mapping) and "model" in args and "name" in args:
            try:
                found[str(application.get("name"))] = ExpertArgs.model_validate(args)
            except ValidationError as error:
                raise InputError(f"{where}: {explain(error, 'args')}") from error
    return found


def _user_config(applications: list[Any], deployment: str) -> Mapping[str, Any] | None:
    for application in applications:
        deployments = application.get("deployments") if isinstance(application, Mapping) else None
        for one in deployments if isinstance(deployments, list) else ():
            if isinstance(one, Mapping) and one.get("name") == deployment:
                user_config = one.get("user_config")
                return user_config if isinstance(user_config, Mapping) else None
    return None
