"""Find a routing method by name: ours, or a user's through the entry-point group `to_router.methods`."""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from router.errors import MethodError
from router.methods.contract import RoutingMethod

GROUP = "to_router.methods"
OURS = {
    "auto": "router.methods.ensemble:AutoRouter",
    "ensemble": "router.methods.ensemble:EnsembleRouter",
    "fixed": "router.methods.fixed:FixedRouter",
    "random": "router.methods.random:RandomRouter",
    "knn": "router.methods.knn:KnnRouter",
    "clusters": "router.methods.clusters:ClustersRouter",
    "tasks": "router.methods.clusters:TasksRouter",
    "linear": "router.methods.linear:LinearRouter",
    "lexical": "router.methods.linear:LexicalRouter",
    "mlp": "router.methods.mlp:MlpRouter",
    "matrix_factorization": "router.methods.matrix_factorization:MatrixFactorizationRouter",
    "elo": "router.methods.elo:EloRouter",
    "bert": "router.methods.bert:BertRouter",
    "added": "router.methods.added:AddedRouter",
}
"""Name → class; imported when asked for."""
KINDS: tuple[tuple[Any, tuple[type, ...], str], ...] = (
    (int, (int,), "a whole number"),
    (int | None, (int, type(None)), "a whole number"),
    (float, (float, int), "a number"),
    (bool, (bool,), "true or false"),
    (str, (str,), "a text"),
    (Sequence[Any] | None, (list, tuple, type(None)), "a list"),
)
"""A parameter's annotation, the types that a recipe may give it, and how they are called."""


def names() -> tuple[str, ...]:
    """Every method that can be asked for, ours first."""
    theirs = (point.name for point in entry_points(group=GROUP))
    return tuple(dict.fromkeys((*OURS, *theirs)))


def method_class(name: str) -> type[RoutingMethod]:
    """The class of a method.

    Raises:
        MethodError: no method bears this name, or what bears it is no method.
    """
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        found: Any = getattr(import_module(module), attribute)
    else:
        points = entry_points(group=GROUP, name=name)
        if not points:
            raise MethodError(f"method {name!r} is unknown; known: {', '.join(names())}")
        found = next(iter(points)).load()
    missing = [part for part in ("fit", "score", "arrays", "restore", "params") if not hasattr(found, part)]
    if missing:
        raise MethodError(
            f"method {name!r} ({found!r}) lacks {', '.join(missing)}: see router.methods.contract"
        )
    return found  # type: ignore[no-any-return]


def make(name: str, params: Mapping[str, Any] | None = None) -> RoutingMethod:
    """An unfitted method with the given parameters.

    Raises:
        MethodError: unknown method, or a parameter that it does not take or of another type.
    """
    found = method_class(name)
    given = {str(item): value for item, value in (params or {}).items()}
    signature = inspect.signature(found).parameters
    taken = [item for item in signature if item != "self"]
    if strangers := sorted(given.keys() - set(taken)):
        raise MethodError(
            f"method {name!r} takes {', '.join(taken) or 'no parameters'}, found {strangers[0]!r}"
        )
    for item, value in given.items():
        _check_kind(f"method {name!r}: {item}", value, signature[item].annotation)
    return found(**given)


def _check_kind(what: str, value: Any, annotation: Any) -> None:
    """By the constructor's annotation; one that is not listed takes what it is given."""
    for known, kinds, told in KINDS:
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if annotation == known and (not fits or value != value):  # NaN alone differs from itself
            raise MethodError(f"{what} must be {told}, found {value!r}")
