"""Keep a canary: in the text of a configuration its policy becomes the one in effect; all else stays.

Comments and layout are a person's work, so spans of the text are replaced and the file is not written from
its values. Knows no setting but the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from router.errors import InputError

CANARY, POLICY = "canary", "policy"
Span = tuple[int, int]
Entry = tuple[yaml.Node, yaml.Node]


@dataclass(frozen=True, slots=True)
class Kept:
    """A configuration after its canary was kept."""

    text: str
    policy: str
    """The canary's folder, which is in effect now."""
    before: str | None
    """The folder that was in effect; `None` for the policy from priors."""


def keep(text: str) -> Kept:
    """Make the policy of a configuration's canary the one in effect, and remove the canary.

    Raises:
        InputError: the text is no YAML, configures no canary or several, or is written in a way that only a
            person can change.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
        found = [] if root is None else list(_with_canary(root, set()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not YAML: {error}") from error
    # An expert or a preset may be called so too.
    found = [one for one in found if _serves_policy(one)] or found
    if len(found) != 1:
        raise InputError(f"configures {'several canaries' if found else 'no canary'}: there must be one")
    canary = _entry(found[0], CANARY)
    new = None if canary is None else _entry(canary[1], POLICY)
    if canary is None or new is None or not isinstance(new[1], yaml.ScalarNode):
        raise InputError("has a canary without a `policy`: set the folder that it serves")
    old = _entry(found[0], POLICY)
    changed = _changed(text, found[0], canary, new[1], old)
    if changed is None or _load(changed) != _kept(data):
        raise InputError(
            f"cannot be changed as text: set `policy: {new[1].value}` and remove `canary` by hand"
        )
    before = str(old[1].value) if old is not None and isinstance(old[1], yaml.ScalarNode) else None
    return Kept(changed, str(new[1].value), before or None)


def _with_canary(node: yaml.Node, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """Every mapping that configures a canary, each once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        canary = _entry(node, CANARY)
        if canary is not None and isinstance(canary[1], yaml.MappingNode):
            yield node
        for _, value in node.value:
            yield from _with_canary(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _with_canary(value, seen)


def _serves_policy(node: yaml.Node) -> bool:
    canary = _entry(node, CANARY)
    return canary is not None and _entry(canary[1], POLICY) is not None


def _entry(node: yaml.Node, key: str) -> Entry | None:
    pairs: list[Entry] = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == key), None)


def _changed(
    text: str, user_config: yaml.MappingNode, canary: Entry, new: yaml.Node, old: Entry | None
) -> str | None:
    """The text with both spans replaced; `None` where they are not plain to see."""
    folder = text[new.start_mark.index : new.end_mark.index]
    if old is None:
        begin, end = canary[0].start_mark.index, _end(canary[1])
        return _replaced(text, [((begin, end), f"{POLICY}: {folder}")])
    removed = _flow_span(user_config, canary) if user_config.flow_style else _lines(text, canary)
    if removed is None:
        return None
    begin, end = old[1].start_mark.index, old[1].end_mark.index
    return _replaced(text, [((begin, end), folder if begin < end else f" {folder}"), (removed, "")])


def _replaced(text: str, spans: list[tuple[Span, str]]) -> str:
    for (begin, end), new in sorted(spans, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _end(node: yaml.Node) -> int:
    """Where a node's text ends; the mark of a block is after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)


def _lines(text: str, entry: Entry) -> Span | None:
    """The lines of an entry of a block, with a comment at their end."""
    key, value = entry
    begin, end = key.start_mark.index - key.start_mark.column, _end(value)
    line_end = text.find("\n", end)
    rest = text[end : line_end if line_end >= 0 else len(text)].strip()
    if text[begin : key.start_mark.index].strip() or (rest and not rest.startswith("#")) or end <= begin:
        return None
    return begin, line_end + 1 if line_end >= 0 else len(text)


def _flow_span(node: yaml.MappingNode, entry: Entry) -> Span | None:
    """An entry in braces with the comma that only it needs; there is another one, the policy."""
    at = node.value.index(entry)
    if at:
        return _end(node.value[at - 1][1]), _end(entry[1])
    return entry[0].start_mark.index, node.value[1][0].start_mark.index


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _kept(data: Any) -> Any:
    """The values that the changed text must have."""
    if isinstance(data, dict):
        canary = data.get(CANARY)
        rest = {key: _kept(value) for key, value in data.items()}
        if isinstance(canary, dict) and POLICY in canary:
            del rest[CANARY]
            rest[POLICY] = canary[POLICY]
        return rest
    return [_kept(value) for value in data] if isinstance(data, list) else data
