"""The one error of a deploy: what was expected, what came, and what to do."""

from __future__ import annotations


class RefusedError(Exception):
    """A step cannot be taken. Nothing that ran before it has changed."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what
