"""`kiosk lab profile`: what models cost on this machine, in turn and within one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import add_json, say, say_json, table
from kiosk.commands.lab.options import (
    add_aligned,
    add_feeding,
    add_state,
    feeding_of,
    known_models,
    model_file,
    require_workshop,
)
from kiosk.commands.lab.telling import tell_advice
from kiosk.errors import UserError

if TYPE_CHECKING:
    from kiosk.lab.faces import FaceSet
    from kiosk.lab.timing import ModelProfile, Profile, Timing

_MOST_THREADS = 16
_MIB = 1024 * 1024
_MODELS = "ONNX files, or ids of models"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    parser = commands.add_parser("profile", help="time, operators, memory and bytes of models")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=_MODELS)
    parser.add_argument("--against", type=Path, metavar="FP32", help="what ratios refer to")
    parser.add_argument("--threads", default="1", metavar="N[,N...]", help="default: 1")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="default: 60")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="cold starts, default 3")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="faces to run on; default: the golden ones"
    )
    parser.add_argument(
        "--entry",
        action="append",
        default=[],
        metavar="MODEL:KEY=VALUE",
        help="a further session entry for one model, such as int8.onnx:session.disable_quant_qdq=1",
    )
    add_aligned(parser)
    add_state(parser, reads=True)
    add_feeding(parser)
    add_json(parser)
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Measure and tell."""
    require_workshop()
    from kiosk.lab.grounds import profile_advice
    from kiosk.lab.profile import profile
    from kiosk.lab.runner import inputs_of
    from kiosk.lab.subject import read_subject, require_fit
    from kiosk.vision.cpu import read_cpu

    threads = threads_of(options.threads)
    if options.rounds < 1 or options.starts < 1:
        raise UserError("--rounds and --starts: numbers from 1 on expected")
    manifest = known_models(options)
    named = {model: model_file(model, manifest) for model in options.models}
    files = distinct(options.models, named)
    against = None if options.against is None else model_file(options.against, manifest)
    if against is not None:
        same = [file for file in files if file.resolve() == against.resolve()]
        against = same[0] if same else against
        files = files if same else [against, *files]
    names = names_of(files)
    entries = entries_of(options.entry, names | {id_: names[file] for id_, file in named.items()})
    fed = feeding_of(options)
    subjects = {names[file]: read_subject(file, fed, manifest) for file in files}
    for subject in subjects.values():
        require_fit(subject)
    faces = _faces(options.images, aligned=options.aligned)
    found = profile(
        {name: subject.path.read_bytes() for name, subject in subjects.items()},
        {name: inputs_of(faces.faces, subject.input) for name, subject in subjects.items()},
        threads=threads,
        rounds=options.rounds,
        against=None if against is None else names[against],
        entries=entries,
        starts=options.starts,
    )
    advice = profile_advice(
        found, {name: subject.proto for name, subject in subjects.items()}, read_cpu()
    )
    if options.json:
        say_json({**found.document(), "advice": [told.document() for told in advice]})
        return 0
    _tell(found, len(faces.faces))
    for told in advice:
        at = "" if told.threads is None else f", threads: {told.threads}"
        say()
        tell_advice([told.advice], f"{told.model}{at}: ")
    return 0


def threads_of(text: str) -> tuple[int, ...]:
    """The numbers of a list such as 1,2,4; UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= _MOST_THREADS for part in parts):
        raise UserError(f"--threads: numbers of 1 to {_MOST_THREADS} expected, got {text!r}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def distinct(models: list[Path], named: dict[Path, Path]) -> list[Path]:
    """The files of what was named; UserError for one that is named twice."""
    files = [named[model] for model in models]
    places = [file.resolve() for file in files]
    for model, place in zip(models, places, strict=True):
        if places.count(place) > 1:
            raise UserError(
                f"each model once expected, {model} is named {places.count(place)} times",
                hint="a copy under another name can be measured against it",
            )
    return files


def names_of(files: list[Path]) -> dict[Path, str]:
    """What each file is called: its name, or its path where two share the name."""
    plain = [file.name for file in files]
    return {file: file.name if plain.count(file.name) == 1 else str(file) for file in files}


def entries_of(given: list[str], names: dict[Path, str]) -> dict[str, dict[str, str]]:
    """Session entries by the name of the model; UserError for a malformed one."""
    entries: dict[str, dict[str, str]] = {}
    for text in given:
        model, colon, rest = text.partition(":")
        key, equals, value = rest.partition("=")
        name = {str(path): name for path, name in names.items()} | {n: n for n in names.values()}
        if not (colon and equals and key) or model not in name:
            known = ", ".join(dict.fromkeys(names.values()))
            raise UserError(f"--entry: MODEL:KEY=VALUE expected, MODEL of {known}, got {text!r}")
        entries.setdefault(name[model], {})[key] = value
    return entries


def _faces(folder: Path | None, *, aligned: bool) -> FaceSet:
    from kiosk.lab.faces import read_folder
    from kiosk.vision.manifest import shipped_models_dir

    if folder is None:
        return read_folder(shipped_models_dir() / "golden", aligned=True)
    return read_folder(folder, aligned=aligned)


def _tell(found: Profile, faces: int) -> None:
    say(f"{found.machine}; {found.runtime}; the daemon's session settings")
    rounds = f"{found.rounds} round{'' if found.rounds == 1 else 's'} in turn"
    say(f"{rounds} over {faces} face{'' if faces == 1 else 's'}, milliseconds")
    say()
    heads = ["model", "threads", "min", "median", "mean", "p95", "session", "first run"]
    heads += ["peak MiB", "file MiB"] + ([f"min to {found.against}"] if found.against else [])
    say(table(heads, [_row(m, t) for m in found.models for t in m.timings]))
    for model in found.models:
        for timing in model.timings:
            say()
            say(f"{model.name}, threads: {timing.threads}, by operator")
            say(
                table(
                    ("kind", "count", "ms", "share"),
                    [
                        (o.kind, str(o.count), f"{o.total_ms:.3f}", f"{o.share:.1%}")
                        for o in timing.operators
                    ],
                )
            )


def _row(model: ModelProfile, timing: Timing) -> list[str]:
    warm, cold = timing.warm, timing.cold
    row = [model.name, str(timing.threads)]
    row += [f"{ms:.2f}" for ms in (warm.min_ms, warm.median_ms, warm.mean_ms, warm.p95_ms)]
    row += [f"{cold.session_ms:.0f}", f"{cold.first_run_ms:.1f}"]
    row += [f"{cold.peak_bytes / _MIB:.1f}", f"{model.bytes / _MIB:.2f}"]
    return row + ([f"{timing.ratio:.3f}"] if timing.ratio is not None else [])
