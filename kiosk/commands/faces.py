"""`kiosk embed` and `kiosk compare`: faces in pictures, by the daemon's own code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kiosk.commands.console import add_json, add_models_dir, complain, say, say_json
from kiosk.config import Models, Recognition, load
from kiosk.errors import KioskError, PictureError, UnknownModelError, UserError

if TYPE_CHECKING:
    from kiosk.vision.pipeline import FacePipeline, FoundFace


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    embed = commands.add_parser("embed", help="faces, qualities, embeddings and F2 tokens")
    embed.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="a picture: JPEG, PNG, WebP, BMP, PNM",
    )
    embed.add_argument("--aligned", action="store_true", help="take 112x112 crops as they are")
    compare = commands.add_parser("compare", help="are these the same person?")
    compare.add_argument("one", type=Path, metavar="A", help="a picture; its largest face is taken")
    compare.add_argument("other", type=Path, metavar="B", help="the picture to compare it with")
    for parser, action in ((embed, embed_images), (compare, compare_images)):
        parser.add_argument(
            "--model",
            metavar="ID",
            help=f"this very file; default: models.embedder of --config, else {Models().embedder}",
        )
        add_models_dir(parser)
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="whose models are known and used"
        )
        add_json(parser)
        parser.set_defaults(action=action)


def open_eyes(
    model: str | None,
    models_dirs: list[str],
    *,
    config: Path | None = None,
    matching: bool = True,
) -> FacePipeline:
    """The pipeline for one-off commands: the very file of that id, else the configured embedder.

    Models of `config` are known too. Without `matching` one that has no threshold will do.
    """
    from kiosk.clock import SystemClock
    from kiosk.vision.manifest import load_manifest
    from kiosk.vision.pipeline import open_pipeline

    settings = None if config is None else load(config)
    models = Models() if settings is None else settings.models
    state_dir = None if settings is None else Path(settings.paths.state_dir)
    models = msgspec.structs.replace(
        models,
        embedder=model or models.embedder,
        extra_dirs=(*models.extra_dirs, *models_dirs),
        also="",
        shadow_every=0,
    )
    try:
        entry = load_manifest(models.extra_dirs, state_dir).get(models.embedder, "embedder")
    except UnknownModelError as error:
        # Here the caller names it, not a configuration that a daemon runs on.
        place = "--model" if model or config is None else f"{config}: models.embedder"
        raise UserError(f"{place}: {error.message}", hint=error.hint) from error
    if model or settings is None or not (matching or entry.usable):
        models = msgspec.structs.replace(models, prefer="exact")
    return open_pipeline(
        models,
        clock=SystemClock(),
        record=lambda _stage, _ms: None,
        choice_in=state_dir,
        keep_choice=False,
        matching=matching,
    )


def embed_images(options: argparse.Namespace) -> int:
    """A line for each image; 1 at the end when any of them failed."""
    eyes = open_eyes(options.model, options.models_dir, config=options.config, matching=False)
    failed = False
    for path in options.images:
        try:
            document = _document(eyes, path, aligned=options.aligned)
        except KioskError as error:
            failed = True
            if options.json:
                say_json({"image": str(path), "error": str(error)})
            else:
                # Most errors begin with the picture's name already.
                told = str(error)
                complain(f"kiosk: {told}" if str(path) in told else f"kiosk: {path}: {told}")
            continue
        if options.json:
            say_json(document)
        else:
            _say_faces(document)
    return 1 if failed else 0


def compare_images(options: argparse.Namespace) -> int:
    """Cosine similarity of the largest face in each picture; what makes it doubtful to stderr."""
    eyes = open_eyes(options.model, options.models_dir, config=options.config)
    found = [_faces_in(eyes, path) for path in (options.one, options.other)]
    one, other = (faces[0] for faces in found)
    cosine = one.embedding.similarity(other.embedding)
    threshold = _threshold(options, eyes)
    same = cosine >= threshold
    for path, faces in zip((options.one, options.other), found, strict=True):
        _doubt(path, faces)
    if options.json:
        document = {"cosine": cosine, "threshold": threshold, "same": same}
        counts = [len(faces) for faces in found]
        qualities = [round(faces[0].quality.overall, 4) for faces in found]
        extra = {"space": eyes.space, "faces": counts, "quality": qualities}
        say_json({**document, "model": eyes.model_id, **extra})
        return 0
    verdict = "the same person" if same else "different people"
    say(f"cosine {cosine:.4f}, threshold {threshold:.4f}: {verdict} ({eyes.model_id})")
    return 0


def _threshold(options: argparse.Namespace, eyes: FacePipeline) -> float:
    """What the daemon goes by: a configured number holds for the configured embedder alone."""
    if options.config is None or options.model:
        return eyes.threshold
    configured = load(options.config).recognition.threshold
    return eyes.threshold if configured == "model" else configured


def _doubt(path: Path, faces: list[FoundFace]) -> None:
    """Say which face was taken where there were several, and that it is hardly one to go by."""
    if len(faces) > 1:
        complain(f"kiosk: {path}: expected one face, got {len(faces)}; the largest is compared")
    quality, least = faces[0].quality.overall, Recognition().min_quality
    if quality < least:
        complain(
            f"kiosk: {path}: expected a face of quality {least} or more, got {quality:.2f};"
            " a kiosk would pass it over, do not rely on the answer"
        )


def _faces_in(eyes: FacePipeline, path: Path) -> list[FoundFace]:
    """The faces of a picture, the largest first; PictureError when there is none."""
    from kiosk.vision.picture import load_picture

    faces = eyes.faces(load_picture(path))
    if not faces:
        raise PictureError(
            f"{path}: a face expected, none found",
            hint="use a picture in which the face is sharp and at least 40 pixels high",
        )
    return faces


def _document(eyes: FacePipeline, path: Path, *, aligned: bool) -> dict[str, Any]:
    from kiosk.vision.picture import load_picture

    pixels = load_picture(path)
    height, width = pixels.shape[:2]
    head = {"image": str(path), "width": width, "height": height}
    head |= {"model": eyes.model_id, "space": eyes.space}
    if aligned:
        embedding = eyes.embed_aligned(pixels)
        return {**head, "faces": [{"box": [0, 0, width, height], **_tokens(embedding)}]}
    return {**head, "faces": [_face(face) for face in eyes.faces(pixels)]}


def _face(face: FoundFace) -> dict[str, Any]:
    quality = face.quality
    measures = {name: round(getattr(quality, name), 4) for name in _MEASURES}
    return {
        "box": [round(value, 2) for value in face.detection.box],
        "score": round(face.detection.score, 4),
        "landmarks": [[round(float(v), 2) for v in point] for point in face.detection.landmarks],
        "quality": {**measures, "overall": round(quality.overall, 4)},
        **_tokens(face.embedding),
    }


_MEASURES = ("size", "sharpness", "exposure", "pose", "edge")


def _tokens(embedding: Any) -> dict[str, Any]:
    from kiosk.wire import f2

    vector = [float(value) for value in embedding.vector]
    return {"embedding": vector, "f2": f2.encode(embedding.vector).fields()}


def _say_faces(document: dict[str, Any]) -> None:
    faces = document["faces"]
    size = f"{document['width']}x{document['height']}"
    say(f"{document['image']}: {size}, {len(faces)} face{'' if len(faces) == 1 else 's'}")
    for face in faces:
        left, top, width, height = face["box"]
        quality = face.get("quality", {}).get("overall")
        extra = "" if quality is None else f", score {face['score']}, quality {quality}"
        say(f"  {width:.0f}x{height:.0f} at {left:.0f},{top:.0f}{extra}")
        say(f"  F2_META {face['f2']['F2_META']}")
