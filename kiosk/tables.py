"""A parsed document against nested structures: every mistake, and every value that is right."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

_SHOWN_CHARACTERS = 200


class Reading:
    """What a document says: `problems`, a line for each, and `known`, the values by dotted key.

    msgspec alone stops at the first mistake. Defaults are known as well; a key with a mistake in it
    is not, nor is a list of tables with a mistake in any of them.
    """

    def __init__(self, document: Any, struct: type[Struct]) -> None:
        self.problems: list[str] = []
        self.known: dict[str, Any] = {}
        self._table(document, struct, "")

    def _table(self, value: Any, struct: type[Struct], prefix: str) -> None:
        if not isinstance(value, dict):
            name = prefix.rstrip(".") or "document"
            self.problems.append(f"{name}: expected a table, got {_shown(value)}")
            return
        hints = get_type_hints(struct, include_extras=True)
        for key in value.keys() - hints.keys():
            near = difflib.get_close_matches(key, hints, n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(hints)}"
            self.problems.append(f"{prefix}{key}: unknown key{meant}")
        for field in msgspec.structs.fields(struct):
            key = f"{prefix}{field.name}"
            if field.name in value:
                self._value(value[field.name], hints[field.name], key)
            elif field.required and _is_table(hints[field.name]):
                # Its own required keys are what is missing.
                self._table({}, hints[field.name], f"{key}.")
            elif field.required:
                self.problems.append(f"{key}: missing, and it has no default")
            elif isinstance(field.default, Struct):
                self._table({}, type(field.default), f"{key}.")
            else:
                self.known[key] = field.default

    def _value(self, value: Any, hint: Any, key: str) -> None:
        if _is_table(hint):
            self._table(value, hint, f"{key}.")
            return
        element = get_args(hint)[0] if get_origin(hint) is tuple else None
        if isinstance(element, type) and issubclass(element, Struct) and isinstance(value, list):
            count = len(self.problems)
            for index, item in enumerate(value):
                self._table(item, element, f"{key}[{index}].")
            if len(self.problems) == count:
                self.known[key] = value
            return
        try:
            right = msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            self.problems.append(f"{key} = {_shown(value)}: {_allowed(hint) or str(error)}")
            return
        if any("\0" in text for text in _texts(value)):
            self.problems.append(f"{key} = {_shown(value)}: expected text without a NUL character")
            return
        self.known[key] = right


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if _is_text(text)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _shown(value: Any) -> str:
    """A value for a line that a person reads, without what is before an @: maybe a password."""
    text = re.sub(r"(?s)^(['\"]).*@", r"\1...@", repr(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _allowed(hint: Any) -> str:
    """What a key takes, in words; empty when msgspec's own message says it best."""
    if get_origin(hint) is Literal:
        return "allowed: " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, *metas = get_args(hint)
        for meta in metas:
            if meta.description:
                return f"expected {meta.description}"
        bounds = [
            f"{word} {limit}"
            for meta in metas
            for word, limit in (
                ("at least", meta.ge),
                ("at most", meta.le),
                ("no shorter than", meta.min_length),
                ("no longer than", meta.max_length),
                ("matching", meta.pattern),
            )
            if limit is not None
        ]
        return f"expected {kind.__name__} " + ", ".join(bounds)
    if isinstance(hint, type):
        return f"expected {hint.__name__}"
    parts = [_allowed(part) for part in get_args(hint)]
    return " or ".join(part for part in parts if part)
