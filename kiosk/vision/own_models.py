"""Models of one's own in the state folder: a manifest that commands write, weights, golden faces.

What lies there outlives every deploy. Each file is replaced as a whole, the manifest last, so that
a cut leaves at most a file that no manifest names.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kiosk.errors import ModelError, UserError
from kiosk.vault import write_atomic
from kiosk.vision.manifest import OWN_MODELS, ModelEntry, entry_from, read_folder

MODE = 0o640
_HEAD = (
    "# Written by `kiosk models add`, `kiosk models remove` and `kiosk lab roc --set-threshold`.\n"
)

Listing = dict[str, Any]
"""One `[[model]]` table as it stands in the file."""


class OwnModels:
    """The models that were added to one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.folder = state_dir / OWN_MODELS
        self.manifest = self.folder / "manifest.toml"

    @property
    def golden(self) -> Path:
        """The folder of golden faces."""
        return self.folder / "golden"

    def entries(self) -> list[ModelEntry]:
        """What was added; ModelError for a manifest that does not check."""
        return read_folder(self.folder) if self.manifest.is_file() else []

    def get(self, model_id: str) -> ModelEntry:
        """The added model of that id; UserError for any other."""
        entries = {entry.id: entry for entry in self.entries()}
        if model_id not in entries:
            known = ", ".join(entries) or "none was added"
            raise UserError(
                f"a model that was added expected, {model_id!r} is none of them: {known}",
                hint="`kiosk models add` adds one",
            )
        return entries[model_id]

    def prepare(self) -> None:
        """Make the folders; UserError when another user's would be written to."""
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self._state_dir.stat().st_uid
            if owner != os.geteuid():
                raise UserError(
                    f"{self._state_dir}: a folder of user {os.geteuid()} expected, it is {owner}'s:"
                    " the daemon could not read what is written there",
                    hint=f"run as its owner: sudo -u '#{owner}' kiosk ...",
                )
            self.folder.mkdir(mode=0o750, exist_ok=True)
            self.golden.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"{self.folder}: a folder to write to expected, {error.strerror}",
                hint="run as the kiosk's own user",
            ) from error

    def path_of(self, model_id: str) -> Path:
        """Where the file of an id lies."""
        return self.folder / f"{model_id}.onnx"

    def entry(self, listing: Listing) -> ModelEntry:
        """The entry that a table would make; ModelError when it does not check."""
        return entry_from(listing, self.folder, f"{self.manifest}: {listing['id']}")

    def put(self, listing: Listing) -> None:
        """Write the table of a model in place of the one with its id, or at the end."""
        with self._locked() as listings:
            listings[listing["id"]] = listing

    def pin_golden(self, space: str, digest: str) -> None:
        """Let the models of a space be held against the golden faces of this hash alone."""
        with self._locked() as listings:
            for listing in listings.values():
                if listing.get("space") == space:
                    listing["golden"] = digest

    def set_threshold(self, model_id: str, threshold: float, note: str) -> None:
        """Let a model decide from this cosine on; UserError when it was not added."""
        self.get(model_id)
        with self._locked() as listings:
            listing = listings[model_id]
            listing.pop("usable", None)
            listing |= {"threshold": threshold, "threshold_note": note}

    def remove(self, model_id: str) -> None:
        """Take a model out, its file and, after the last of its space, the golden faces."""
        entry = self.get(model_id)
        with self._locked() as listings:
            del listings[model_id]
        entry.path.unlink(missing_ok=True)
        if all(other.space != entry.space for other in self.entries()):
            (self.golden / f"{entry.space}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Listing]]:
        """The tables by id, to be changed; written when the block ends without an error."""
        self.prepare()
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.entries()  # a manifest that does not check is not written over
            text = self.manifest.read_text(encoding="utf-8") if self.manifest.is_file() else ""
            listings = {item["id"]: item for item in tomllib.loads(text).get("model", ())}
            yield listings
            for listing in listings.values():
                self.entry(listing)
            tables = [_table(listing) for listing in listings.values()]
            # An empty list, not an empty file: a manifest has models, if none.
            body = "\n".join(tables) if tables else "model = []\n"
            write_atomic(self.manifest, (_HEAD + "\n" + body).encode(), MODE)
        finally:
            os.close(descriptor)


def _table(listing: Mapping[str, Any]) -> str:
    return "\n".join(["[[model]]", *(f"{key} = {_toml(v)}" for key, v in listing.items()), ""])


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    # JSON's texts and numbers are TOML's too, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
