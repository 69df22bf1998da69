"""Documents of the workshop that may have come from anywhere: each wrong value is refused by name.

A `Node` is a value of a YAML or JSON file together with its place, such as `files[1].recipe`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kiosk.errors import UserError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[A-Za-z0-9_/:@-]{1,80}")
_MOST_BYTES = 64 * 1024 * 1024
_LARGEST = 3.4e38
"""What float32 holds."""
_SHOWN = 80
_HINT = "take the file that the build wrote, unchanged"


def read_bytes(path: Path) -> bytes:
    """A document's bytes; UserError when it cannot be read or has more than 64 MiB."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: expected a file to read, {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: at most {_MOST_BYTES:,} bytes expected, it has more", hint=_HINT)
    return data


def read_yaml(path: Path) -> Node:
    """The whole of a YAML file, plain values only; UserError for anything else."""
    data = read_bytes(path)
    try:
        return Node(path, "", yaml.safe_load(data))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # A date that is none or a list as a key are no YAMLError.
        raise UserError(
            f"{path}: a record in YAML expected, {_reason(error)}", hint=_HINT
        ) from error


def json_in(path: Path, data: bytes) -> Node:
    """The whole of a JSON file that was read; UserError for anything else."""
    try:
        return Node(path, "", json.loads(data))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: JSON expected, {_reason(error)}", hint=_HINT) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place. Every method raises UserError that names file, place and value."""

    file: Path
    key: str
    value: Any

    def refuse(self, expected: str, got: str = "") -> UserError:
        """The error that says what was expected here; `got` if the value itself says nothing."""
        place = f" {self.key}:" if self.key else ""
        wanted = expected if " expected" in expected else f"{expected} expected"
        return UserError(
            f"{self.file}:{place} {wanted}, got {got or shown(self.value)}", hint=_HINT
        )

    def __getitem__(self, key: str) -> Node:
        """What a mapping has under a key that it must have."""
        if key not in self._mapping():
            raise self._at(key).refuse("a value", "nothing: the key is missing")
        return self._at(key)

    def __contains__(self, key: str) -> bool:
        return key in self._mapping()

    def members(self) -> Iterator[tuple[str, Node]]:
        """Every key, which must be a text, with what it has."""
        for key in self._mapping():
            if not isinstance(key, str):
                raise self.refuse("keys that are texts", shown(key))
            yield key, self._at(key)

    def items(self) -> list[Node]:
        """The items of a list."""
        if not isinstance(self.value, list):
            raise self.refuse("a list")
        return [Node(self.file, f"{self.key}[{i}]", each) for i, each in enumerate(self.value)]

    def text(self) -> str:
        """A printable text of at least one character."""
        if not isinstance(self.value, str) or not self.value.isprintable() or not self.value:
            raise self.refuse("a text")
        return self.value

    def file_name(self) -> str:
        """The name of a file in a folder: a record from elsewhere reaches nothing else."""
        name = self.value
        if (
            not isinstance(name, str)
            or not name.isprintable()
            or name in {"", ".", ".."}
            or Path(name).name != name
        ):
            raise self.refuse("the name of a file expected, without a folder")
        return name

    def sha256(self) -> str:
        """64 hexadecimal digits in lower case."""
        if not isinstance(self.value, str) or not _SHA256.fullmatch(self.value):
            raise self.refuse("a SHA-256 of 64 hexadecimal digits")
        return self.value

    def one_of(self, known: Collection[str]) -> str:
        """One of these texts."""
        if not isinstance(self.value, str) or self.value not in known:
            raise self.refuse(f"one of {', '.join(known)}")
        return self.value

    def number(self) -> float:
        """A finite number that float32 holds."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse("a number")
        # Compared before it is converted: an integer may be larger than any float.
        if not -_LARGEST <= value <= _LARGEST or not math.isfinite(value):
            raise self.refuse("a finite number of float32")
        return float(value)

    def count(self) -> int:
        """A whole number of 1 or more."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse("a whole number of 1 or more")
        return value

    def numbers(self) -> list[float]:
        """A list of one finite number or more."""
        values = [each.number() for each in self.items()]
        if not values:
            raise self.refuse("a list of numbers")
        return values

    def _mapping(self) -> dict[Any, Any]:
        if not isinstance(self.value, dict):
            raise self.refuse("keys and values")
        return self.value

    def _at(self, key: str) -> Node:
        name = key if _PLAIN.fullmatch(key) else repr(key[:_SHOWN])
        place = f"{self.key}.{name}" if self.key else name
        return Node(self.file, place, self._mapping().get(key))


def shown(value: Any) -> str:
    """A value in a few words, whatever it is."""
    match value:
        case dict():
            return f"a mapping of {len(value)} keys"
        case list():
            return f"a list of {len(value)}"
        case str():
            return f"{value[:_SHOWN]!r}" if value else "an empty text"
        case int() if not isinstance(value, bool) and abs(value) > _LARGEST:
            return f"an integer of {value.bit_length()} bits"
        case None:
            return "nothing"
    return str(value)[:_SHOWN]
