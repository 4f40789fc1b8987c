"""What an answer settles on: its last number, its letter, its marked final answer; and whether two agree.

Text in, values out; knows nothing of labels, plans or requests. Cheap to import, for the ingress.
"""

import ast
import json
import math
import re
import unicodedata
from typing import Any

_SEPARATOR = r"(?:,\\!|\{?\\?,\}?|\\[;:!> ]|['’\u00a0\u2005-\u200a\u202f\u205f])"
"""Between groups of three digits, in text and in LaTeX; no plain space, which also separates numbers."""
_POWER = r"10\s?(?:(?:\^|\*\*)\s?\{?([-+]?\d+)|([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))"
_NUMBER = re.compile(
    rf"([-+]?)(?:{_POWER}"
    rf"|((?:\d{{1,3}}(?P<by>{_SEPARATOR})\d{{3}}(?:(?P=by)\d{{3}})*(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    rf"(?:[eE]([-+]?\d+)|\s?(?:×|·|\*|\\times|\\cdot)\s?{_POWER})?)"
)
"""Groups: sign, power of ten alone (two forms), digits, their separator, their power of ten (three forms)."""
_SEPARATORS = re.compile(_SEPARATOR)
_ON_THE_LINE = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_NAMED_CHOICE = re.compile(
    r"\b(?:answer|choice|option)\b\s*(?:is\b|:)?[\s:*(]*([A-Z])(?!['’]?[A-Z0-9])", re.IGNORECASE
)
_LONE_CHOICE = re.compile(r"(?<![A-Za-z0-9])([A-Z])(?!['’]?[A-Za-z0-9])")
_GOES_ON = re.compile(r"[ \t]+\w")
LONGEST_READ = 1 << 16
"""Characters of an answer's end that are read for its final answer."""
LONGEST_LINE = 200
"""Characters of a last line that counts as a final answer without any mark."""
LONGEST_LITERAL = 4096
"""Characters of a final answer that is parsed as a literal, such as a list."""
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_JSON_ANSWER = re.compile(r'"(?:final_)?answer"\s*:\s*', re.IGNORECASE)
_NAMED = re.compile(r"(?:####|\b(?:final\s+)?answer\b\s*(?:is\b\s*:?|:))[\s*]*([^\n]+)", re.IGNORECASE)
_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_LATEX = (
    (r"\left", ""),
    (r"\right", ""),
    (r"\dfrac", r"\frac"),
    (r"\tfrac", r"\frac"),
    (r"\!", ""),
    (r"\,", ""),
)
_PAIRS = {'"': '"', "'": "'", "`": "`", "$": "$", "(": ")"}
_UNIT = re.compile(r"(?<!\w)[^\W\d_]{2,}|^\w+\s*=|\\?%|°|\\?\$")
_LETTERED = re.compile(r"\(?([A-Za-z])[).:](?:\s|$)")
_DECODER = json.JSONDecoder()


def normal(text: str) -> str:
    """A text as it is compared: Unicode composed, case and space folded, a final full stop dropped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".").strip()


def final_answer(text: str) -> str | None:
    r"""The answer that a response ends on, in the form in which equal answers are equal.

    In this order: the last `<answer>`, JSON `answer`, `\boxed`, "answer is …" or `####`, a short last line,
    the last number.

    Returns:
        `None` where there is none of these.
    """
    text = text[-LONGEST_READ:].strip()
    for find in (_tagged, _from_json, _boxed, _named, _last_line):
        found = find(text)
        if found is not None and (form := _comparable(found)):
            return form
    number = last_number(text)
    return None if number is None else _as_text(number)


def agreement(a: str, b: str) -> float | None:
    """1 where two responses end on the same answer, else 0; `None` where one of them has no final answer."""
    first, second = final_answer(a), final_answer(b)
    return None if first is None or second is None else float(first == second)


def _tagged(text: str) -> str | None:
    found = _TAGGED.findall(text)
    return found[-1] if found else None


def _from_json(text: str) -> Any:
    found = list(_JSON_ANSWER.finditer(text))
    if not found:
        return None
    rest = text[found[-1].end() :]
    try:
        return _DECODER.raw_decode(rest)[0]
    except (ValueError, RecursionError):  # the answer as code, or cut off
        return rest.splitlines()[0].rstrip(" }`,") if rest else None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[start:at]
    return None


def _named(text: str) -> str | None:
    found = _NAMED.findall(text)
    return found[-1].rstrip(" *.") if found else None


def _last_line(text: str) -> str | None:
    lines = text.splitlines()
    if len(lines) != 1 or len(text) > LONGEST_LINE:
        return None
    letter = chosen_letter(text) if len(text.split()) <= 3 else None  # "(B) yes"
    return letter or text


def _comparable(answer: Any) -> str:
    """A final answer in the form in which equal ones are equal."""
    if not isinstance(answer, str):
        return _as_text(answer)
    text = unicodedata.normalize("NFKC", answer).replace("\boxed{", r"\boxed{").strip()  # read as an escape
    text = _boxed(text) or text
    for latex, plain in _LATEX:
        text = text.replace(latex, plain)
    text = _FRACTION.sub(r"\1/\2", _WRAPPED.sub(r"\1", text)).strip(" \n*.")
    while len(text) >= 2 and _PAIRS.get(text[0]) == text[-1]:  # a pair of signs
        text = text[1:-1].strip()
    if lettered := _LETTERED.match(text):
        return lettered[1].casefold()
    if len(text) <= LONGEST_LITERAL and text[:1] in "[({":
        try:
            return _as_text(ast.literal_eval(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    number = last_number(text)
    if number is not None and not _UNIT.sub("", _NUMBER.sub("", text, count=1)).strip(" ,.:="):
        return _as_text(number)
    return "".join(text.casefold().split())


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        form = value if isinstance(value, str) else repr(value)
        return "".join(form.casefold().split())
    try:
        return f"{float(value):.10g}"
    except OverflowError:
        return str(value)[:LONGEST_LINE]


def last_number(text: str) -> float | None:
    """The last number of a text, without thousands separators, powers of ten applied.

    Returns:
        `None` where there is none, or where it is beyond every float.
    """
    found = _NUMBER.findall(text.replace("−", "-"))
    if not found:
        return None
    sign, *alone, digits, _, exponent, power, raised = found[-1]
    digits = _SEPARATORS.sub("", digits or "1")
    power = "".join((*alone, exponent, power, raised)) or "0"  # at most one of them is not empty
    value = float(f"{sign}{digits}e{power.translate(_ON_THE_LINE)}")
    return value if math.isfinite(value) else None


def chosen_letter(text: str) -> str | None:
    """The letter that a response settles on: the last one named as the answer, else the last one alone.

    An "A" or "I" with which a phrase begins counts only where there is no other letter.
    """
    for pattern, words in ((_NAMED_CHOICE, "aiI"), (_LONE_CHOICE, "AI"), (_LONE_CHOICE, "I")):
        if letters := _letters(pattern, text, words=words):
            return letters[-1]
    return None


def _letters(pattern: re.Pattern[str], text: str, *, words: str) -> list[str]:
    """The letters that a pattern finds, without those of `words` that another word follows."""
    return [
        found[1].upper()
        for found in pattern.finditer(text)
        if found[1] not in words or not _GOES_ON.match(text, found.end(1))
    ]
