"""Pictures of people that the bench measures on: ../shared, when it stands beside the checkout."""

from pathlib import Path

import cv2
import numpy as np

from kiosk.types import Pixels
from kiosk.vision.picture import load_picture
from kiosk.vision.pipeline import FacePipeline

REPOSITORY = Path(__file__).parents[2]
PEOPLE = REPOSITORY / "kiosk" / "demo" / "people"
DATA = REPOSITORY.parent / "shared" / "data"
CALIBRATION_PEOPLE = 10
"""The first so many of faces112, by name, are for calibration; nobody judges by them."""


def halves() -> tuple[list[Path], list[Path]]:
    """The crops of faces112 for calibration and those held out: no person is in both."""
    people = sorted(folder for folder in (DATA / "faces112").glob("*") if folder.is_dir())
    cut = people[:CALIBRATION_PEOPLE], people[CALIBRATION_PEOPLE:]
    known, held_out = ([p for one in half for p in sorted(one.glob("*.png"))] for half in cut)
    return known, held_out


def orl(eyes: FacePipeline) -> tuple[list[Pixels], np.ndarray, int]:
    """Aligned crops of ORL, whose they are, and how many pictures gave none.

    Each picture is padded by 40 px and doubled: the faces fill them to the edge.
    """
    crops, labels, missed = [], [], 0
    for path in sorted((DATA / "orl").glob("*/*.pgm")):
        padded = cv2.copyMakeBorder(load_picture(path), *[40] * 4, cv2.BORDER_REPLICATE)
        faces = eyes.faces(cv2.resize(padded, None, fx=2, fy=2))
        if not faces:
            missed += 1
            continue
        crops.append(faces[0].aligned)
        labels.append(path.parent.name)
    return crops, np.array(labels), missed
