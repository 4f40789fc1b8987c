"""A policy before any outcome: kinds of task from the query, expected qualities from priors.

Pure: takes an encoder and plain facts of the experts, returns an unsaved policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from router.core import FloatArray, Preferences
from router.costs import CostModel, Regression
from router.encoders import EncoderSpec
from router.errors import InputError
from router.experts import CandidatePool, ExpertProfile
from router.guard import NoveltyGuard
from router.methods.prior import PriorRouter
from router.policy import Policy
from router.priors.abilities import Abilities, AbilityPrior
from router.priors.catalogue import KINDS, Catalogue, CatalogueRow
from router.priors.facts import Facts, facts_of
from router.priors.probes import Probe, examples
from router.priors.shape import config_of, shape_of

COST_WEIGHT = 0.05
"""Default preference, as a part of the best expert's expected quality: a prior is uncertain, so that a saving
must be large to be worth a difference, and where all expect little, differences are small too."""
TOKENS_ASSUMED = 400.0
"""Completion tokens where the catalogue knows none of a kind."""
TOKENS_STRENGTH = 2.0
"""A model's token habit is pulled to the mean as if this many kinds had shown it."""
SEED = 0


class Encodes(Protocol):
    """The part of an encoder that is used here."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class StartExpert:
    """An expert as a prior sees it."""

    profile: ExpertProfile
    model: str
    """A hub id, a folder or an API's name: its facts are read from it."""
    config: Mapping[str, Any] | None = None
    """Its `config.json`."""

    @property
    def facts(self) -> Facts:
        """What its name, its config and its price say."""
        price = self.profile.price
        return facts_of(self.model, self.config, output_usd=None if price is None else price.output)


def experts_of(policy: Policy) -> list[StartExpert]:
    """The experts of a policy; their models are those that its prior was made for, else their names."""
    about = policy.training.get("prior") or {}
    found = [started(expert, about.get(expert.name, {}).get("model")) for expert in policy.pool]
    return [with_reported(one, about.get(one.profile.name, {})) for one in found]


def started(profile: ExpertProfile, model: str | None) -> StartExpert:
    """An expert whose model is a hub id, a folder or an API's name; by default its own name.

    Raises:
        InputError: the folder's `config.json` cannot be read.
    """
    named = model or profile.name
    return StartExpert(profile, named, config_of(Path(named)))


def with_reported(expert: StartExpert, card: Mapping[str, Any]) -> StartExpert:
    """The expert with what its running replica reports, where it was not known before.

    Args:
        expert: as it is configured.
        card: of the expert in `/v1/models`: the model as `root`, of its `config.json` the shape, the context
            window. What is invalid is left out.
    """
    root, config, window = (card.get(key) for key in ("root", "config", "max_model_len"))
    named = expert.model != expert.profile.name
    profile = expert.profile
    if profile.context_window is None and isinstance(window, int) and window > 0:
        profile = replace(profile, context_window=window)
    return replace(
        expert,
        profile=profile,
        model=root if not named and isinstance(root, str) and root else expert.model,
        config=shape_of(config) if expert.config is None and isinstance(config, Mapping) else expert.config,
    )


@dataclass(frozen=True, slots=True)
class Basis:
    """What an expert's prior rests on."""

    origin: str
    """`catalogue`, `facts` or `nothing`."""
    rows: int
    """Rows of the catalogue about this model or another release of it."""


def prior_policy(
    experts: Sequence[StartExpert],
    encoder: Encodes,
    *,
    prior: AbilityPrior,
    catalogue: Catalogue,
    probes: Sequence[Probe],
) -> Policy:
    """A policy over the experts, made without calling them; unsaved.

    Args:
        experts: in the order of the pool.
        encoder: recorded in the policy.
        prior: fitted on `catalogue`.
        catalogue: its rows also hold the token habits.
        probes: examples of every kind.

    Raises:
        InputError: there is no expert, or no example of a kind.
        PoolError: an expert is duplicated.
    """
    pool = CandidatePool([expert.profile for expert in experts])
    facts = [expert.facts for expert in experts]
    abilities = prior.of(facts)
    quality = abilities.quality.T  # [kinds, experts]
    shown = examples(probes)
    labels = np.array([KINDS.index(probe.kind) for probe in shown])
    if set(labels.tolist()) != set(range(len(KINDS))):
        raise InputError(f"the probes must hold examples of every kind: {', '.join(KINDS)}")
    embeddings = encoder.encode([probe.query for probe in shown])
    means = quality.mean(axis=0)
    prices = [(np.nan, np.nan) if e.price is None else (e.price.input, e.price.output) for e in pool]
    tokens = token_habits(facts, catalogue)[labels]  # [examples, experts]
    order = np.argsort(-means, kind="stable")
    return Policy(
        pool=pool,
        encoder=encoder.spec,
        method=PriorRouter(kinds=KINDS).expect(embeddings, labels, quality),
        costs=CostModel(np.array(prices), Regression.fit(embeddings, tokens)),
        guard=NoveltyGuard.fit(embeddings, means, seed=SEED),
        static_ranking=tuple(pool.names[column] for column in order),
        preferences=preference(means),
        training={
            "seed": SEED,
            "n_queries": 0,
            "best_single": pool.names[int(order[0])],
            "metrics": {"expert_means": {name: float(m) for name, m in zip(pool.names, means, strict=True)}},
            "prior": described(pool.names, experts, abilities, catalogue),
        },
    )


def preference(means: FloatArray) -> Preferences:
    """The default preference at these expected qualities of the experts, [experts]."""
    return Preferences(cost_weight=COST_WEIGHT * float(means.max()))


def described(
    names: Sequence[str], experts: Sequence[StartExpert], abilities: Abilities, catalogue: Catalogue
) -> dict[str, Any]:
    """The prior for people and programs: what it rests on, and 90 % intervals by expert and kind."""
    low, high = abilities.interval()
    quality = abilities.quality
    found: dict[str, Any] = {}
    for row, (name, expert) in enumerate(zip(names, experts, strict=True)):
        basis = basis_of(expert.facts, catalogue)
        found[name] = {
            "model": expert.model,
            **({} if expert.config is None else {"config": shape_of(expert.config)}),
            "origin": basis.origin,
            "catalogue_rows": basis.rows,
            "kinds": {
                kind: [round(float(value), 4) for value in (quality[row, at], low[row, at], high[row, at])]
                for at, kind in enumerate(KINDS)
            },
        }
    return found


def basis_of(facts: Facts, catalogue: Catalogue) -> Basis:
    """What the prior of a model rests on."""
    rows = [row for row in catalogue.rows if facts.line and row.facts.line == facts.line]
    if rows:
        return Basis("catalogue", len(rows))
    families = {row.facts.family for row in catalogue.rows}
    known = facts.total_b is not None or facts.family in families
    return Basis("facts" if known else "nothing", 0)


def token_habits(models: Sequence[Facts], catalogue: Catalogue) -> FloatArray:
    """Expected completion tokens, [kinds, models]: those of the kind, times the model's own habit."""
    logs = np.full(len(KINDS), np.log(TOKENS_ASSUMED))
    with_tokens = [row for row in catalogue.rows if row.tokens]
    for at, kind in enumerate(KINDS):
        if of_kind := _logs([row for row in with_tokens if row.kind == kind]):
            logs[at] = np.mean(of_kind)
    found = np.empty((len(KINDS), len(models)))
    for column, facts in enumerate(models):
        own = [row for row in with_tokens if facts.line and row.facts.line == facts.line]
        above = [np.log(row.tokens or 1.0) - logs[KINDS.index(row.kind)] for row in own]
        habit = sum(above) / (len(above) + TOKENS_STRENGTH)
        found[:, column] = np.exp(logs + habit)
    return found


def _logs(rows: Sequence[CatalogueRow]) -> list[float]:
    return [float(np.log(row.tokens)) for row in rows if row.tokens]
