"""`kiosk lab build`: rewrite, equalise, search, gate, measure, from one FP32 file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from kiosk.errors import ModelError, UserError
from kiosk.lab.agreement import Agreement, agreement
from kiosk.lab.assemble import Plan, assemble
from kiosk.lab.calibrate import Method, write_ranges
from kiosk.lab.faces import FaceSet
from kiosk.lab.files import write_model
from kiosk.lab.gate import Line, judge, passes
from kiosk.lab.identities import Identities
from kiosk.lab.prepare import base_of, float_forms, ready
from kiosk.lab.profile import profile
from kiosk.lab.progress import say
from kiosk.lab.quantise import Recipe, in_int8, quantised, recipe_ranges_name, to_bytes
from kiosk.lab.roc import Roc
from kiosk.lab.runner import Arithmetic, embeddings, inputs_of, session_of
from kiosk.lab.search import CALIBRATIONS, Found, Search
from kiosk.lab.subject import Subject
from kiosk.lab.timing import Profile
from kiosk.types import FloatArray

NAIVE = "the guide's recipe as it stands"
_NAIVE_RECIPE = Recipe(per_channel=False, calibration="MinMax", percentile=100.0)
_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be built. `name` begins the names of the files.

    Without `identities` cosine and MAE alone are judged, and all that is written says so.
    """

    subject: Subject
    calibration: FaceSet
    holdout: FaceSet
    out: Path
    name: str
    threads: int = 2
    calibrations: tuple[tuple[Method, float], ...] = CALIBRATIONS
    identities: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """One model against FP32 on held-out faces."""

    agreed: Agreement
    roc: Roc | None
    lines: tuple[Line, ...]
    matrix: FloatArray

    @property
    def passed(self) -> bool:
        """Whether every line of the gate passes, but for those left out by word."""
        return passes(self.lines)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One file. `validation` is in reference arithmetic, `native` in this machine's own."""

    file: str
    data: bytes
    form: str
    plan: Plan | None
    int8: int
    layers: int
    validation: Validation | None = None
    native: Validation | None = None

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the gate; none for what was not judged."""
        return self.validation.lines if self.validation else ()

    @property
    def sha256(self) -> str:
        """The file's hash."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """All that one build found out; `chosen` is None when nothing passed the gate."""

    request: Request
    found: Found
    fp32: Made
    source_roc: Roc | None
    source_matrix: FloatArray
    variants: tuple[Made, ...]
    naive: Made
    chosen: Made | None
    profile: Profile
    ranges: Mapping[str, bytes]

    def passing(self) -> list[Made]:
        """The variants that pass the gate."""
        return [made for made in self.variants if made.validation and made.validation.passed]

    def source_ms(self) -> float:
        """The best time of the file given, one thread, in milliseconds."""
        return self.profile.timing(self.request.subject.path.name, 1).warm.min_ms

    def fastest_fp32_ms(self) -> float:
        """That of the fastest FP32 file: the one written, or the one given."""
        return min(self.source_ms(), self.best_ms(self.fp32))

    def best_ms(self, made: Made) -> float:
        """The best time of one file, one thread, in milliseconds."""
        name = made.form if made is self.fp32 else made.file
        return self.profile.timing(name, 1).warm.min_ms


def build(request: Request) -> Built:
    """Do it all, but write nothing.

    Raises UserError for an overlap of calibration and held-out pictures and for held-out faces on
    which the gate cannot be judged, ModelError when the search finds nothing that would pass.
    """
    both = request.holdout.overlap(request.calibration)
    if both:
        named = ", ".join(str(face.path) for face in both[:5])
        raise UserError(
            f"held-out pictures that calibration has not seen expected, {len(both)} are in both:"
            f" {named}",
            hint="take them out of one folder",
        )
    why = Identities.of(request.holdout.faces).why_no_roc() if request.identities else ""
    if why:
        raise UserError(
            f"{request.holdout.folder}: held-out faces to judge AUC drop and TAR@1e-3 drop on"
            f" expected, they could not be judged ({why})",
            hint="hold out more people, a folder for each, or judge cosine and MAE alone with"
            " --no-identities",
        )
    return _Build(request).run()


class _Build:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._subject = request.subject
        spec = request.subject.input
        self._calibration = inputs_of(request.calibration.faces, spec)
        self._holdout = inputs_of(request.holdout.faces, spec)
        self._people = Identities.of(request.holdout.faces)
        self._source = ready(request.subject)
        self._matrix = self._embed(self._source, "native")
        self._roc = self._people.roc(self._matrix) if request.identities else None

    def run(self) -> Built:
        request, subject = self._request, self._subject
        base = base_of(subject)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            naive = self._naive(folder)
            search = Search(
                subject,
                base,
                request.calibration.faces,
                folder,
                threads=request.threads,
                calibrations=request.calibrations,
            )
            found = search.run()
            files = {recipe_ranges_name(p.recipe): search.range_file(p) for p in found.plans}
            variants = [self._variant(base, found, plan, search) for plan in found.plans]
            ranges = {name: path.read_bytes() for name, path in files.items()}
        fp32, measured = self._measure([*variants, naive])
        chosen = self._fastest(variants, measured)
        return Built(
            request=request,
            found=found,
            fp32=fp32,
            source_roc=self._roc,
            source_matrix=self._matrix,
            variants=tuple(variants),
            naive=naive,
            chosen=chosen,
            profile=measured,
            ranges=ranges,
        )

    def _naive(self, folder: Path) -> Made:
        say(f"step 1 of 5: {NAIVE}, to compare with")
        ranges = folder / "naive.json"
        write_ranges(
            self._source,
            self._calibration,
            ranges,
            method=_NAIVE_RECIPE.calibration,
            percentile=_NAIVE_RECIPE.percentile,
            op_types=_NAIVE_RECIPE.op_types,
        )
        model = quantised(self._source, _NAIVE_RECIPE, ranges)
        eight, layers = in_int8(model)
        return Made(
            file=NAIVE,
            data=to_bytes(model),
            form="qdq",
            plan=None,
            int8=eight,
            layers=layers,
            validation=self._validate(model, "reference"),
            native=self._validate(model, "native"),
        )

    def _variant(self, base: onnx.ModelProto, found: Found, plan: Plan, search: Search) -> Made:
        say(f"step 4 of 5: judging {plan.variant} on held-out faces")
        both = assemble(base, found.factors, plan, search.range_file(plan))
        eight, layers = in_int8(both.shipped)
        return Made(
            file=f"{self._request.name}-int8-{plan.variant}.onnx",
            data=to_bytes(both.shipped),
            form=plan.form,
            plan=plan,
            int8=eight,
            layers=layers,
            validation=self._validate(both.judged, "reference"),
            native=self._validate(both.shipped, "native"),
        )

    def _measure(self, quantised_files: Sequence[Made]) -> tuple[Made, Profile]:
        """Time everything in one run, and take the fastest form of FP32."""
        say("step 5 of 5: measuring on this machine, a few minutes")
        forms = {name: to_bytes(model) for name, model in float_forms(self._subject).items()}
        models = {**forms, **{made.file: made.data for made in quantised_files}}
        measured = profile(
            {self._subject.path.name: to_bytes(self._source), **models},
            self._holdout[:4],
            threads=sorted({1, self._request.threads}),
            rounds=_ROUNDS,
            against=self._subject.path.name,
        )
        best = min(forms, key=lambda name: measured.timing(name, 1).warm.min_ms)
        file = f"{self._request.name}-fp32.onnx"
        return Made(file, forms[best], best, None, 0, 0), measured

    def _fastest(self, variants: Sequence[Made], measured: Profile) -> Made | None:
        passing = [made for made in variants if made.validation and made.validation.passed]
        return min(
            passing, key=lambda made: measured.timing(made.file, 1).warm.min_ms, default=None
        )

    def _validate(self, model: onnx.ModelProto, arithmetic: Arithmetic) -> Validation:
        matrix = self._embed(model, arithmetic)
        agreed = agreement(self._matrix, matrix)
        roc = None if self._roc is None else self._people.roc(matrix)
        lines = judge(agreed, self._roc, roc, identities=self._request.identities)
        return Validation(agreed, roc, lines, matrix)

    def _embed(self, model: onnx.ModelProto, arithmetic: Arithmetic) -> FloatArray:
        session = session_of(model, threads=self._request.threads, arithmetic=arithmetic)
        return embeddings(session, self._holdout, self._subject.output_name)


def write_files(built: Built, out: Path) -> list[Path]:
    """Write the FP32 form and every variant that passes, each loaded and run beforehand.

    Raises ModelError, naming the failing lines, when none passes.
    """
    request = built.request
    passing = built.passing()
    if not passing:
        raise ModelError("a variant that passes the gate expected, none does")
    some = inputs_of(request.holdout.faces[:2], request.subject.input)
    written = []
    for made in (built.fp32, *passing):
        write_model(out / made.file, onnx.load_model_from_string(made.data), some)
        written.append(out / made.file)
    return written
