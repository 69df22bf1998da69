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
_ENOUGH_STEPS = 16
"""A channel that uses fewer steps of its scale than this has 3 bits of mantissa left, or less."""
_ARM = {"aarch64", "arm64", "armv7l"}


@dataclass(frozen=True, slots=True)
class LayerError:
    """What quantising one layer alone does; `error` in any unit that all layers share."""

    name: str
    error: float
    in_int8: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one quantised model. Everything is optional; the unknown is None.

    Latencies are two like figures of one interleaved run, in milliseconds, and `latency_figure`
    says which. `costliest` is the kind of operator that takes the largest share of INT8's time,
    `prelu_share` that of PRelu nodes. `fewest_steps`: of weights with one scale for all channels,
    a tensor and how many steps of 127 its smallest channel uses. `saturates`: this CPU sums this
    model's 8-bit products in 16 bits; `dot_product`: it has an instruction for such sums.
    """

    calibration_faces: int | None = None
    calibration_people: int | None = None
    holdout_faces: int | None = None
    overlap_checked: bool | None = None
    gate: tuple[GateLine, ...] = ()
    cosine_mean: float | None = None
    method: Literal["static", "dynamic"] | None = None
    per_channel: bool | None = None
    fewest_steps: tuple[str, int] | None = None
    format: Literal["QDQ", "QOperator"] | None = None
    calibration_method: Literal["MinMax", "Entropy", "Percentile"] | None = None
    latency_fp32_ms: float | None = None
    latency_int8_ms: float | None = None
    latency_figure: str = "best times"
    costliest: tuple[str, float] | None = None
    layers: tuple[LayerError, ...] = ()
    architecture: str | None = None
    saturates: bool | None = None
    dot_product: bool | None = None
    prelu_nodes: int | None = None
    prelu_share: float | None = None
    prelu_rewritten: bool = False
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


def _unchecked(facts: Facts) -> Advice | None:
    if facts.overlap_checked is not False:
        return None
    return Advice(
        "overlap-unchecked",
        "hint",
        "overlap with the calibration pictures not checked.",
        "A model is judged too well on the faces whose ranges it was given.",
        "Name them: --calibration DIR, or --record quantization_config.yaml.",
    )


def _few_held_out(facts: Facts) -> Advice | None:
    faces = facts.holdout_faces
    if faces is None or faces >= FEW_FACES:
        return None
    return Advice(
        "few-held-out",
        "hint",
        f"{faces} held-out face{'' if faces == 1 else 's'}.",
        "The least cosine of few faces says little about the next face.",
        f"{FEW_FACES} faces or more make a sound judgement, 1,000 a good one.",
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
        "`kiosk lab build` equalises, chooses the calibration and leaves the fewest layers in FP32;"
        " by hand: `kiosk lab quantize` with more faces, --calibration Percentile, --exclude NODE.",
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
        "Leave them in FP32 one by one (--exclude NODE), the worst first, and judge each time.",
    )


def _slower(facts: Facts) -> Advice | None:
    fp32, int8 = facts.latency_fp32_ms, facts.latency_int8_ms
    if fp32 is None or int8 is None or int8 <= fp32:
        return None
    seen = f"{int8:.2f} ms in INT8, {fp32:.2f} ms in FP32 ({facts.latency_figure}):"
    seen += f" {int8 / fp32:.2f} times as long."
    if facts.costliest is not None:
        kind, share = facts.costliest
        seen += f" {kind} takes {share:.0%} of it."
    if facts.method == "dynamic":
        return Advice(
            "dynamic-slower",
            "warning",
            seen,
            "Dynamic quantisation measures the range of every activation anew at each run, and"
            " its convolutions have no fast kernel.",
            "Quantise statically, with calibration faces: `kiosk lab quantize --calib DIR`.",
        )
    other = {
        "QDQ": " try QOperator format with session.disable_quant_qdq=1,",
        "QOperator": " try QDQ,",
        None: "",
    }[facts.format]
    rewrite = "" if facts.prelu_rewritten else " rewrite PReLU,"
    return Advice(
        "int8-slower",
        "warning",
        seen,
        "Float operators between the INT8 ones cost a conversion each way, and 8-bit products are"
        " fast only where the CPU has a dot product.",
        f"See the profile by operator;{rewrite}{other} or run FP32 on this machine."
        if rewrite or other
        else "See the profile by operator, and run FP32 on this machine.",
    )


def _cpu(facts: Facts) -> Advice | None:
    if facts.saturates:
        return Advice(
            "saturates",
            "warning",
            f"This CPU ({facts.architecture or 'x86'}) has no VNNI: U8S8 products saturate in 16"
            " bits.",
            "The same file gives other embeddings here than on ARM or with VNNI, as a rule worse"
            " ones; in QDQ format the daemon's sessions do not saturate, and take longer for it.",
            "Judge in the reference arithmetic or on the board; use reduce_range or U8U8 if this"
            " machine is to run it.",
        )
    if facts.dot_product is not False:
        return None
    wanted = "asimddp" if facts.architecture in _ARM else "VNNI"
    return Advice(
        "no-dot-product",
        "hint",
        f"This CPU ({facts.architecture or 'unknown'}) has no dot product ({wanted}).",
        "8-bit products take several instructions here: INT8 wins memory, and little time or none.",
        "Profile both on the machine that is to run it and take the faster one.",
    )


def _per_tensor(facts: Facts) -> Advice | None:
    if facts.per_channel is not False:
        return None
    told = []
    if facts.fewest_steps is not None:
        name, steps = facts.fewest_steps
        if steps >= _ENOUGH_STEPS and (not facts.gate or passes(facts.gate)):
            return None
        told.append(f"the smallest channel of {name} has {steps} of 127 steps")
    if facts.cosine_mean is not None:
        told.append(f"mean cosine {facts.cosine_mean:.4f}")
    return Advice(
        "per-tensor",
        "warning",
        f"One scale for all channels of a layer's weights{': ' if told else ''}{', '.join(told)}.",
        "Channels of a depthwise convolution differ by orders of magnitude: the small ones become"
        " a few steps.",
        "Quantise statically and per channel (opset 13 or later); it costs no time.",
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
        f"{facts.prelu_nodes} PRelu node{'' if facts.prelu_nodes == 1 else 's'} left in the graph"
        f"{'' if facts.prelu_share is None else f', {facts.prelu_share:.0%} of the time'}.",
        "ONNX Runtime's kernel for it is not vectorised and breaks the layout between"
        " convolutions.",
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
        "Turn them below 1 (negate the channel before, multiply by -a after): exact, and done by"
        " `kiosk lab build`, and by `quantize` without --as-it-is, between convolutions.",
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
    _gate,
    _few_faces,
    _cpu,
    _slower,
    _per_tensor,
    _layers,
    _few_people,
    _unchecked,
    _few_held_out,
    _min_max,
    _prelu,
    _steep,
    _size,
)
