"""Which pictures a model was calibrated with, so that it is never judged on one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from kiosk.errors import UserError
from kiosk.lab.faces import digest_of, pictures_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMED = 5


def hashes_of_folder(folder: Path) -> frozenset[str]:
    """The SHA-256 of every picture file below a folder."""
    return frozenset(digest_of(path) for path in pictures_of(folder))


def hashes_of_record(path: Path) -> frozenset[str]:
    """The SHA-256 of every calibration picture that a quantization_config.yaml lists.

    `calibration.files` is the list, `calibration.digest` the SHA-256 over the sorted list, one a
    line, as FaceSet.digest. Raises UserError for a record without a list, or with another digest.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: a record expected, {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: a record in YAML expected, {reason}") from error
    section = document.get("calibration") if isinstance(document, dict) else None
    files = section.get("files") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(files, list) or not files:
        raise UserError(
            f"{path}: calibration.files expected, the SHA-256 of each picture; it has none",
            hint="give the calibration pictures themselves with --calibration DIR",
        )
    hashes = [str(item) for item in files]
    odd = next((item for item in hashes if not _SHA256.fullmatch(item)), None)
    if odd is not None:
        raise UserError(f"{path}: calibration.files: a SHA-256 expected, got {odd[:80]!r}")
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    if section.get("digest", digest) != digest:
        raise UserError(
            f"{path}: calibration.digest {digest} expected of the files listed,"
            f" got {section['digest']}",
            hint="the record was changed by hand, or is not whole",
        )
    return frozenset(hashes)


def refuse_overlap(images: Sequence[Path], calibrated: frozenset[str], source: Path) -> None:
    """UserError that names the pictures which are, byte for byte, among the calibration set's."""
    both = [path for path in images if digest_of(path) in calibrated]
    if not both:
        return
    names = ", ".join(str(path) for path in both[:_NAMED])
    more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
    raise UserError(
        f"pictures that calibration has not seen expected, {len(both)} of {len(images)} are"
        f" in {source}: {names}{more}",
        hint="a model is judged on pictures it was not fitted to: hold some out",
    )
