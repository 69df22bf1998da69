"""`kiosk models add`: a model of one's own, with the workshop's libraries to look into it."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kiosk.commands.console import add_json, complain, say, say_json
from kiosk.commands.lab.options import (
    add_mean_and_scale,
    add_state,
    known_models,
    own_models,
    require_workshop,
)

if TYPE_CHECKING:
    from kiosk.lab.adopt import Adopted

_ID = re.compile(r"(?!.*(fp32|int8).*-(fp32|int8)$)[a-z0-9][a-z0-9.-]{0,40}-(fp32|int8)")
# It names files and goes into every message.
_SPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ALIGNMENTS = ("arcface-112-4pt",)


def register(models: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `kiosk models`."""
    parser = models.add_parser(
        "add",
        help="a model of your own into the state folder",
        description="It decides nothing before `kiosk lab roc --set-threshold` has set its"
        " threshold.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the embedder as an ONNX file")
    parser.add_argument(
        "--id",
        type=_id,
        required=True,
        metavar="NAME-fp32|NAME-int8",
        help="what it is to be called; ends with its precision",
    )
    parser.add_argument(
        "--space", type=_space, metavar="S", help="weights and alignment; default: NAME-DIM-4pt"
    )
    parser.add_argument("--licence", metavar="L", help="under which it may be used")
    parser.add_argument("--source", metavar="TEXT", help="where the file is from")
    parser.add_argument("--channels", choices=("RGB", "BGR"), help="default: RGB")
    add_mean_and_scale(parser)
    parser.add_argument(
        "--alignment",
        choices=_ALIGNMENTS,
        default=_ALIGNMENTS[0],
        help=f"how faces are cut out for it; default: {_ALIGNMENTS[0]}",
    )
    add_state(parser)
    add_json(parser)
    parser.set_defaults(action=add_model)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"a-z, 0-9, dot and dash, then -fp32 or -int8 (once, at the end) expected, got {text!r}"
        )
    return text


def _space(text: str) -> str:
    if not _SPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"1 to 64 letters, digits, dots, dashes and underlines expected, got {text!r}"
        )
    return text


def add_model(options: argparse.Namespace) -> int:
    """Look into a file and copy it; what is there already stays as it is."""
    require_workshop()
    from kiosk.lab.adopt import Wish, adopt

    own = own_models(options)
    wish = Wish(
        options.id,
        options.alignment,
        space=options.space,
        licence=options.licence,
        source=options.source,
        channels=options.channels,
        mean=options.mean,
        scale=options.scale,
    )
    adopted = adopt(options.file, wish, own, known_models(options))
    if options.json:
        say_json(_document(adopted))
    else:
        _tell(adopted, _place(options))
    return 0


def _document(adopted: Adopted) -> dict[str, object]:
    import msgspec

    entry, found = adopted.entry, adopted.agreement
    return {
        "id": entry.id,
        "added": adopted.is_new,
        "file": str(entry.path),
        "sha256": entry.sha256,
        "opset": adopted.opset,
        "input": msgspec.to_builtins(entry.input),
        "remark": adopted.remark or None,
        "output": entry.output,
        "dim": entry.dim,
        "space": entry.space,
        "alignment": entry.alignment,
        "cosine": None if found is None else found.least,
        "usable": entry.usable,
    }


def _place(options: argparse.Namespace) -> str:
    """The option by which the next command finds the model again."""
    if options.state_dir is not None:
        return f"--state-dir {shlex.quote(str(options.state_dir))}"
    return f"--config {shlex.quote(str(options.config))}"


def _tell(adopted: Adopted, place: str) -> None:
    from kiosk.lab.prepare import LEAST_OPSET
    from kiosk.vision.manifest import set_threshold_command

    entry, found = adopted.entry, adopted.agreement
    spec = entry.input
    old = adopted.opset < LEAST_OPSET
    say(f"{entry.id}: {'added' if adopted.is_new else 'there already'}, {entry.path}")
    say(
        f"opset    {adopted.opset}"
        + (f" (converted to {LEAST_OPSET} when quantised)" if old else "")
    )
    batch = f"batch of {spec.batch}" if spec.batch else "any batch"
    say(
        f"input    {spec.layout} {spec.width}x{spec.height}, {batch}, {spec.channels},"
        f" (pixel - {spec.mean:g}) * {spec.scale:.6g}"
    )
    if adopted.remark:
        complain(adopted.remark)
    say(f"output   {entry.output}, {entry.dim} values")
    say(f"space    {entry.space}, aligned as {entry.alignment}")
    golden = "recorded now, by this file"
    if found is not None:
        golden = f"cosine {found.least:.6f} at least, {found.mean:.6f} in the mean"
    say(f"golden   {golden}")
    if not entry.usable:
        say("It decides nothing yet: it has no threshold.")
        say(set_threshold_command(entry.id, place))
