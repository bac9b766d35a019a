"""What is wrong with a value or a name, in the product's own words.

Owns the sentences, not the rules; knows neither settings nor requests, and never repeats a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_Context = Mapping[str, Any]

_WORDS: Mapping[str, Callable[[_Context], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda context: "is not a known name" + _meant(context.get("meant")),
    "int_from_float": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "is too large a number",
    "finite_number": lambda _: "must be a finite number",
    "greater_than_equal": lambda context: f"must be at least {_number(context['ge'])}",
    "greater_than": lambda context: f"must be greater than {_number(context['gt'])}",
    "less_than_equal": lambda context: f"must be at most {_number(context['le'])}",
    "less_than": lambda context: f"must be less than {_number(context['lt'])}",
    "enum": lambda context: f"must be {_choices(context['expected'])}",
    "literal_error": lambda context: f"must be {_choices(context['expected'])}",
    "string_too_long": lambda context: f"may have at most {context['max_length']} characters",
    "string_too_short": lambda context: f"must have at least {context['min_length']} characters",
    "string_pattern_mismatch": lambda _: "has a form that is not accepted",
    "too_long": lambda context: f"may have at most {context['max_length']} entries",
    "path_not_file": lambda _: "is not a file",
    "path_not_directory": lambda _: "is not a folder",
    "path_not_exists": lambda _: "does not exist",
    "value_error": lambda context: str(context["error"]),
}
#: First part of an error type -> what such a value must be.
_KINDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "model": "an object",
    "datetime": "a date and time",
    "date": "a date",
    "path": "a path",
}


def in_plain_words(fault: Mapping[str, Any]) -> str:
    """Return what is wrong, such as "must be a whole number", of one entry of `ValidationError.errors()`."""
    kind, context = str(fault["type"]), fault.get("ctx") or {}
    words = _WORDS.get(kind)
    if words is not None:
        try:
            return words(context)
        except KeyError:  # the context was left out by the caller
            return str(fault["msg"]).removeprefix("Value error, ")
    needed = _KINDS.get(kind.partition("_")[0])
    return f"must be {needed}" if needed else str(fault["msg"]).removeprefix("Value error, ")


def _meant(name: str | None) -> str:
    return "" if name is None else f"; did you mean {name}?"


def about(name: str, words: str) -> str:
    """Name the field before what is wrong with it; "must be" and the like continue the sentence."""
    return f"{name} {words}" if words.startswith(("must ", "is ", "may ", "has ")) else f"{name}: {words}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one was meant to be, whatever its case; None if none is close."""
    by_fold = {_folded(one): one for one in reversed(list(known))}
    close = difflib.get_close_matches(_folded(name), by_fold, n=1, cutoff=0.7)
    return by_fold[close[0]] if close else None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def unknown_name(name: str, known: Iterable[str], kind: str) -> str:
    """Return what to say about a name that is not one of the known ones of this kind."""
    close = nearest(name, known)
    return f"is not a {kind} and is ignored" + ("" if close is None else f"; did you mean `{close}`?")


def printable(sentence: str) -> str:
    """Return a sentence with characters that a terminal would obey as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in sentence)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _choices(expected: object) -> str:
    """Turn `'crop', 'pad' or 'stretch'` into the same without the quotes."""
    return str(expected).replace("'", "")
