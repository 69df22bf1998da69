"""Errors of the sending side: what was expected, what came, and what to do."""

from __future__ import annotations


class DeployError(Exception):
    """A deploy cannot go on. `hint` says what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what
