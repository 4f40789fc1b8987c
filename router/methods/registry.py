"""Find a routing method by name: ours, or a user's through the entry-point group `to_router.methods`."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from router.errors import MethodError
from router.methods.contract import RoutingMethod
from router.validation import explain

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
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
"""Name → class; imported when it is needed."""


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
    try:
        signature = inspect.signature(found, eval_str=True).parameters
    except NameError:  # an annotation in quotes that names nothing at run time
        signature = inspect.signature(found).parameters
    taken = [item for item in signature if item != "self"]
    if strangers := sorted(given.keys() - set(taken)):
        raise MethodError(
            f"method {name!r} takes {', '.join(taken) or 'no parameters'}, found {strangers[0]!r}"
        )
    for item, value in given.items():
        if signature[item].annotation is not inspect.Parameter.empty:
            _check_type(f"method {name!r}: {item}", value, signature[item].annotation)
    return found(**given)


def _check_type(what: str, value: Any, annotation: Any) -> None:
    """Check a value against a constructor's annotation, without conversions such as "10" to 10."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=STRICT)
    except (PydanticUserError, NameError):
        return  # an annotation that pydantic does not know: the constructor takes what it is given
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise MethodError(explain(error, what)) from error
