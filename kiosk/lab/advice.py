"""What could be better, said in the figures that were measured. Pure: facts in, advice out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from kiosk.lab.margin import GateLine, passes, tightest

FEW_FACES, BETTER_FACES = 50, 100
"""A calibration set below the first is a fault by the guide, below the second worth a hint."""
FEW_PEOPLE = 20
_NEAR = 0.8
_HURTS = 4.0
_MOST_NAMED = 4
_HARDLY_SMALLER = 0.5


@dataclass(frozen=True, slots=True)
class LayerError:
    """What quantising one layer alone does; `error` in any unit that all layers share."""

    name: str
    error: float
    in_int8: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one quantised model. Everything is optional; the unknown is None.

    Latencies are the best of one interleaved run, in milliseconds. `features` are those of the
    CPU as /proc/cpuinfo names them. `saturates`: 8-bit products are summed in 16 bits.
    """

    calibration_faces: int | None = None
    calibration_people: int | None = None
    holdout_faces: int | None = None
    overlap: int | None = None
    gate: tuple[GateLine, ...] = ()
    cosine_mean: float | None = None
    cosine_min: float | None = None
    method: Literal["static", "dynamic"] | None = None
    per_channel: bool | None = None
    format: Literal["QDQ", "QOperator"] | None = None
    calibration_method: Literal["MinMax", "Entropy", "Percentile"] | None = None
    latency_fp32_ms: float | None = None
    latency_int8_ms: float | None = None
    layers: tuple[LayerError, ...] = ()
    architecture: str | None = None
    features: tuple[str, ...] | None = None
    saturates: bool | None = None
    prelu_nodes: int | None = None
    slopes: int | None = None
    slopes_above_one: int | None = None
    bytes_fp32: int | None = None
    bytes_int8: int | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """What was seen, why it matters, what to do. `key` names the rule."""

    key: str
    weight: Literal["warning", "hint"]
    seen: str
    why: str
    do: str


def advise(facts: Facts) -> tuple[Advice, ...]:
    """The advice whose condition holds, warnings first."""
    given = [advice for rule in _RULES if (advice := rule(facts)) is not None]
    return tuple(sorted(given, key=lambda advice: advice.weight != "warning"))


def _overlap(facts: Facts) -> Advice | None:
    if not facts.overlap:
        return None
    of = f" of {facts.holdout_faces}" if facts.holdout_faces else ""
    return Advice(
        "overlap",
        "warning",
        f"{facts.overlap}{of} held-out faces are calibration faces too, by their SHA-256.",
        "A model is judged too well on the faces whose ranges it was given.",
        "Hold out pictures, better still people, that calibration never sees.",
    )


def _few_faces(facts: Facts) -> Advice | None:
    faces = facts.calibration_faces
    if faces is None or faces >= BETTER_FACES:
        return None
    return Advice(
        "few-faces",
        "warning" if faces < FEW_FACES else "hint",
        f"{faces} calibration face{'' if faces == 1 else 's'}.",
        "Ranges from few faces cut off what other faces reach.",
        "Take 100 to 1,000 faces in the light and at the angles of the place.",
    )


def _few_people(facts: Facts) -> Advice | None:
    people = facts.calibration_people
    if people is None or people >= FEW_PEOPLE:
        return None
    return Advice(
        "few-people",
        "hint",
        f"Calibration knows {'one person' if people == 1 else f'{people} people'}.",
        "Pictures of the same faces add little to the ranges, however many they are.",
        f"Calibrate on {FEW_PEOPLE} people or more, of different ages and skin.",
    )


def _gate(facts: Facts) -> Advice | None:
    if not facts.gate:
        return None
    worst = tightest(facts.gate)
    if passes(facts.gate) and worst.used < _NEAR:
        return None
    failed = not passes(facts.gate)
    told = f"{worst.name}: {worst.value:.4f}, asked for {worst.sign} {worst.limit:g}"
    return Advice(
        "gate-failed" if failed else "little-margin",
        "warning" if failed else "hint",
        f"{told}. The gate fails."
        if failed
        else f"{told}. {worst.used:.0%} of the allowed loss is used up.",
        "Embeddings of this file may not be compared with those of FP32."
        if failed
        else "Other faces, or another CPU, may be on the other side of the limit.",
        "Equalise, calibrate by percentile, leave the layers with the largest error in FP32.",
    )


def _layers(facts: Facts) -> Advice | None:
    quantised = [layer for layer in facts.layers if layer.in_int8]
    if len(quantised) < 3:
        return None
    usual = median(layer.error for layer in quantised)
    worst = sorted((x for x in quantised if x.error > _HURTS * usual), key=lambda x: -x.error)
    if not worst:
        return None
    named = ", ".join(f"{x.name} ({x.error:.2g})" for x in worst[:_MOST_NAMED])
    rest = len(worst) - _MOST_NAMED
    return Advice(
        "layers-that-hurt",
        "hint" if passes(facts.gate) else "warning",
        f"Local error against a median of {usual:.2g}: {named}"
        f"{f' and {rest} more' if rest > 0 else ''}.",
        "A few layers cost most of the cosine: the first convolution and the last ones as a rule.",
        "Leave them in FP32 one by one, the worst first, and judge each time.",
    )


def _slower(facts: Facts) -> Advice | None:
    fp32, int8 = facts.latency_fp32_ms, facts.latency_int8_ms
    if fp32 is None or int8 is None or int8 <= fp32:
        return None
    seen = f"{int8:.2f} ms in INT8, {fp32:.2f} ms in FP32: {int8 / fp32:.2f} times as long."
    if facts.method == "dynamic":
        return Advice(
            "dynamic-slower",
            "warning",
            seen,
            "Dynamic quantisation measures the range of every activation anew at each run, and"
            " its convolutions have no fast kernel.",
            "Quantise statically, with calibration faces.",
        )
    other = {
        "QDQ": " try QOperator format with session.disable_quant_qdq=1,",
        "QOperator": " try QDQ,",
        None: "",
    }[facts.format]
    return Advice(
        "int8-slower",
        "warning",
        seen,
        "Float operators between the INT8 ones cost a conversion each way, and 8-bit products are"
        " fast only where the CPU has a dot product.",
        f"See the profile by operator; rewrite PReLU,{other} or run FP32 on this machine.",
    )


def _cpu(facts: Facts) -> Advice | None:
    if facts.saturates:
        return Advice(
            "saturates",
            "warning",
            f"This CPU ({facts.architecture or 'x86'}) has no VNNI: U8S8 products saturate in 16"
            " bits.",
            "The same file gives other embeddings here than on ARM or with VNNI, as a rule worse"
            " ones.",
            "Judge in the reference arithmetic or on the board; use reduce_range or U8U8 if this"
            " machine is to run it.",
        )
    is_arm = facts.architecture in {"aarch64", "arm64", "armv7l"}
    if not is_arm or facts.features is None or "asimddp" in facts.features:
        return None
    return Advice(
        "no-dot-product",
        "hint",
        f"This CPU ({facts.architecture}) has no dot product (asimddp).",
        "8-bit products take as long as float ones here: INT8 wins memory and little time.",
        "Profile both on this very board and take the faster one.",
    )


def _per_tensor(facts: Facts) -> Advice | None:
    if facts.per_channel is not False:
        return None
    got = f": mean cosine {facts.cosine_mean:.4f}" if facts.cosine_mean is not None else ""
    return Advice(
        "per-tensor",
        "warning",
        f"One scale for all channels of a layer's weights{got}.",
        "Channels of a depthwise convolution differ by orders of magnitude: the small ones become"
        " a few steps.",
        "Quantise per channel (opset 13 or later); it costs no time.",
    )


def _min_max(facts: Facts) -> Advice | None:
    if facts.calibration_method != "MinMax" or not facts.gate:
        return None
    worst = tightest(facts.gate)
    if worst.used < _NEAR:
        return None
    return Advice(
        "min-max",
        "hint",
        f"MinMax ranges, and {worst.name} uses {worst.used:.0%} of its allowed loss.",
        "One outlier in the calibration set stretches the grid of all other values.",
        "Try Percentile 99.99, and compare TAR at FAR 1e-4 too: the cosine alone may mislead.",
    )


def _prelu(facts: Facts) -> Advice | None:
    if not facts.prelu_nodes:
        return None
    return Advice(
        "prelu-nodes",
        "hint",
        f"{facts.prelu_nodes} PRelu node{'' if facts.prelu_nodes == 1 else 's'} left in the graph.",
        "ONNX Runtime's kernel for it is not vectorised and breaks the layout between"
        " convolutions: half of the time goes there.",
        "Rewrite them exactly, as `kiosk lab build` does.",
    )


def _steep(facts: Facts) -> Advice | None:
    if not facts.slopes_above_one:
        return None
    of = f" of {facts.slopes:,}" if facts.slopes else ""
    return Advice(
        "steep-slopes",
        "hint",
        f"{facts.slopes_above_one:,}{of} PReLU slopes are above 1.",
        "max(x, a*x) is PReLU only for slopes up to 1; the other forms need more operators.",
        "Turn them below 1 (negate the channel before, multiply by -a after): exact, and faster.",
    )


def _size(facts: Facts) -> Advice | None:
    fp32, int8 = facts.bytes_fp32, facts.bytes_int8
    if not fp32 or int8 is None or int8 <= _HARDLY_SMALLER * fp32:
        return None
    return Advice(
        "hardly-smaller",
        "hint",
        f"{int8:,} bytes, {int8 / fp32:.0%} of FP32's {fp32:,}.",
        "A quarter is what 8 bits should leave: large weights are still float.",
        "See which layers were excluded, and whether the operators' types were.",
    )


_RULES: tuple[Callable[[Facts], Advice | None], ...] = (
    _overlap,
    _gate,
    _few_faces,
    _cpu,
    _slower,
    _per_tensor,
    _layers,
    _few_people,
    _min_max,
    _prelu,
    _steep,
    _size,
)
