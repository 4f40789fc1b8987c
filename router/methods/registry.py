"""Find a routing method by name: built in, or a user's through the entry-point group `to_router.methods`."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from router.core import FloatArray
from router.errors import ManifestError, MethodError
from router.methods.contract import RoutingMethod
from router.validation import check_type, explain

GROUP = "to_router.methods"
BUILT_IN = {
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
    "prior": "router.methods.prior:PriorRouter",
    "shrunk": "router.methods.shrunk:ShrunkRouter",
    "added": "router.methods.added:AddedRouter",
}
"""Name → class; imported when it is needed."""


def names() -> tuple[str, ...]:
    """Names of all methods, built-in ones first."""
    users = (point.name for point in entry_points(group=GROUP))
    return tuple(dict.fromkeys((*BUILT_IN, *users)))


def method_class(name: str) -> type[RoutingMethod]:
    """The class of a method.

    Raises:
        MethodError: no method has this name, or the object of this name is not a method.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        method: Any = getattr(import_module(module), attribute)
    else:
        points = entry_points(group=GROUP, name=name)
        if not points:
            raise MethodError(f"method {name!r} is unknown; known: {', '.join(names())}")
        method = next(iter(points)).load()
    missing = [part for part in ("fit", "score", "arrays", "restore", "params") if not hasattr(method, part)]
    if missing:
        raise MethodError(
            f"method {name!r} ({method!r}) lacks {', '.join(missing)}: see router.methods.contract"
        )
    return method  # type: ignore[no-any-return]


def make(name: str, params: Mapping[str, Any] | None = None) -> RoutingMethod:
    """An unfitted method with the given parameters.

    Raises:
        MethodError: unknown method, or a parameter that it does not accept, or of another type.
    """
    method = method_class(name)
    arguments = {str(item): value for item, value in (params or {}).items()}
    try:
        signature = inspect.signature(method, eval_str=True).parameters
    except NameError:  # an annotation in quotes that names nothing at run time
        signature = inspect.signature(method).parameters
    accepted = [item for item in signature if item != "self"]
    if unknown := sorted(arguments.keys() - set(accepted)):
        raise MethodError(
            f"method {name!r} takes {', '.join(accepted) or 'no parameters'}, found {unknown[0]!r}"
        )
    for item, value in arguments.items():
        if signature[item].annotation is not inspect.Parameter.empty:
            try:
                check_type(value, signature[item].annotation)
            except ValidationError as error:
                raise MethodError(explain(error, f"method {name!r}: {item}")) from error
    return method(**arguments)


def restored(name: str, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> RoutingMethod:
    """A fitted method of a saved policy.

    Raises:
        MethodError: no method has this name.
        WeightsError: its arrays do not fit.
        ManifestError: it does not take its parameters.
    """
    method = method_class(name)
    try:
        return method.restore(params, arrays)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        # A method checks its arrays; parameters that its constructor does not take end here.
        raise ManifestError(
            f"method {name!r} cannot be restored from its parameters and arrays: "
            f"{type(error).__name__}: {error}"
        ) from error
