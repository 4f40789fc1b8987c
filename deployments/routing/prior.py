"""The policy of a graph whose `policy` is left out: made from priors of the experts' models, and saved.

Saved among the state of the deployments, so that it is loaded, copied and shown as any other policy.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployments.config import RouterArgs
from deployments.prior_experts import experts_of_config
from deployments.settings import resolve, state_folder
from router.artifact import MANIFEST
from router.encoders import load_encoder
from router.priors.abilities import ability_prior
from router.priors.card import card
from router.priors.catalogue import load_catalogue
from router.priors.probes import load_probes
from router.priors.start import StartExpert, prior_policy

logger = logging.getLogger("ray.serve")

WHERE = "the configuration of the graph"


def configured_experts(applications: Mapping[str, Any]) -> list[StartExpert]:
    """The experts of the running graph, from the configurations that its applications were deployed with.

    Args:
        applications: as Serve's controller describes them, by name.

    Raises:
        InputError: they name no experts, as in a graph that was not deployed from a configuration.
    """
    configs = [details.get("deployed_app_config") for details in applications.values()]
    return experts_of_config({"applications": [config for config in configs if config]}, WHERE)


def prior_folder(experts: list[StartExpert], args: RouterArgs) -> Path:
    """The folder of the policy from priors over the experts, made where it is missing; blocks.

    Raises:
        RouterError: the experts are invalid, or the encoder is not found.
        OSError: the folder cannot be written.
    """
    digest = hashlib.sha256(repr([_plain(expert) for expert in experts]).encode())
    digest.update(repr([sorted(load_catalogue().sources.items()), args.encoder]).encode())
    folder = state_folder() / "priors" / digest.hexdigest()[:16]
    if (folder / MANIFEST).is_file():
        return folder
    named = "static" if args.encoder == "default" else args.encoder
    encoder = str(resolve(named)) if resolve(named).is_dir() else named
    policy = prior_policy(
        experts,
        load_encoder(encoder, device=args.device, threads=args.threads),
        prior=ability_prior(),
        catalogue=load_catalogue(),
        probes=load_probes(),
    )
    try:
        policy = policy.save(folder, card(policy, load_catalogue()))
    except FileExistsError:  # another replica of this machine was faster
        return folder
    logger.info("policy %s was made from priors, in %s", policy.policy_id, folder)
    return folder


def _plain(expert: StartExpert) -> tuple[Any, ...]:
    profile = asdict(expert.profile) | {"capabilities": sorted(expert.profile.capabilities)}
    return profile, expert.model, sorted((expert.config or {}).items(), key=str)
