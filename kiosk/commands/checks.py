"""`kiosk check-config` and `kiosk doctor`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import add_config, add_json, say, say_json
from kiosk.config import Settings, load
from kiosk.errors import ConfigError, ModelError, UserError
from kiosk.files import lacks

if TYPE_CHECKING:
    from kiosk.health import Finding


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    check = commands.add_parser("check-config", help="tell every mistake in a configuration")
    check.add_argument("file", type=Path, metavar="FILE", help="the configuration, in TOML")
    add_json(check)
    check.set_defaults(action=check_config)
    doctor = commands.add_parser("doctor", help="check what the kiosk needs")
    add_config(doctor)
    add_json(doctor)
    doctor.add_argument(
        "--bundle",
        type=Path,
        metavar="FILE",
        help="write all of it, status and journal into one new file (.tar.gz), without biometrics,"
        " names or secrets",
    )
    doctor.set_defaults(action=run_doctor)


def check_config(options: argparse.Namespace) -> int:
    """0 when it checks; every problem on a line of its own otherwise."""
    problems = list(_problems(options.file))
    if options.json:
        say_json({"file": str(options.file), "checks": not problems, "problems": problems})
        return UserError.exit_status if problems else 0
    if problems:
        count = f"{options.file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(count, problems=tuple(problems))
    say(f"{options.file}: checks")
    return 0


def _problems(file: Path) -> Iterator[str]:
    """What is wrong in the file, then what it names that is not there."""
    try:
        load(file, files=True)
    except ConfigError as error:
        yield from error.problems or (str(error),)
    try:
        settings = load(file)
    except ConfigError:
        return
    if not any(lacks(Path(folder), Path.is_dir) for folder in settings.models.extra_dirs):
        yield from _unknown_models(settings)


def _unknown_models(settings: Settings) -> Iterator[str]:
    from kiosk.vision.manifest import load_manifest, manifest_of

    models, hidden = settings.models, ""
    try:
        try:
            manifest = manifest_of(settings)
        except ModelError as error:
            # What was added to the state may be for the kiosk's user alone to read.
            hidden = str(error)
            manifest = load_manifest(models.extra_dirs)
    except ModelError as error:
        yield f"models.extra_dirs: {error}"
        return
    wanted = [("detector", models.detector), ("embedder", models.embedder)]
    for key, name in (*wanted, *([("also", models.also)] if models.also else [])):
        try:
            manifest.get(name, "detector" if key == "detector" else "embedder")
        except ModelError as error:
            yield f"models.{key} = {name!r}: {hidden or error}"


def run_doctor(options: argparse.Namespace) -> int:
    """A line for each check; 1 when any failed, warnings do not count."""
    from kiosk.health import examine

    findings = examine(options.config)
    if options.json:
        say_json([finding.document() for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.verdict:7} {finding.what}: {finding.found}")
            if finding.advice:
                say(f"        {finding.advice}")
    if options.bundle is not None:
        _bundle(options, findings)
    return 1 if any(finding.verdict == "failed" for finding in findings) else 0


def _bundle(options: argparse.Namespace, findings: list[Finding]) -> None:
    from kiosk.bundle import write_bundle
    from kiosk.clock import SystemClock
    from kiosk.lastgood import load_or_last

    try:
        settings = load_or_last(options.config).settings
    except ConfigError:
        # The findings say it.
        settings = None
    parts = write_bundle(options.bundle, settings, findings, SystemClock())
    if not options.json:
        say(f"{options.bundle}: {', '.join(parts)}; read it before you send it")
