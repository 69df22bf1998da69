"""The embedders of the manifest that the bench holds against each other."""

import onnx

from kiosk.clock import SystemClock
from kiosk.config import Models
from kiosk.vision.manifest import Manifest, ModelEntry, load_manifest
from kiosk.vision.pipeline import FacePipeline, open_pipeline
from kiosk.vision.session import verified_bytes

PLAIN = "mobilefacenet-prelu-fp32"
REWRITTEN = "mobilefacenet-fp32"


def eyes(threads: int = 1) -> FacePipeline:
    """The daemon's own way from a picture to embeddings."""
    return open_pipeline(Models(threads=threads), clock=SystemClock(), record=lambda _s, _m: None)


def int8_ids(manifest: Manifest) -> list[str]:
    """The INT8 files of the default model's space that are here."""
    space = manifest.get(REWRITTEN, "embedder").space
    return [
        entry.id
        for entry in manifest.entries
        if entry.kind == "embedder"
        and entry.space == space
        and "int8" in entry.id
        and entry.path.is_file()
    ]


def entry_of(model_id: str) -> ModelEntry:
    return load_manifest().get(model_id, "embedder")


def graph_of(model_id: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(verified_bytes(entry_of(model_id)))
