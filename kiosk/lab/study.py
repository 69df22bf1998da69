"""Verification figures of one or two models over pairs, with intervals, drops and F2 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiosk.lab.agreement import Agreement, agreement
from kiosk.lab.bootstrap import Bootstrap, Interval, bootstrap
from kiosk.lab.comparison import through_tokens
from kiosk.lab.pairs import Pairs
from kiosk.lab.roc import FARS, Roc, far_name, measure, rounded_up
from kiosk.types import FloatArray

# The guide, "When to Quantize": embeddings lose less than 0.5 % in matching. The curve as a whole,
# a kiosk's own end of it, and accuracy are held to that; rarer FARs rest on a handful of pairs.
MOST_TOKEN_LOSS_PP = 0.5
_HELD = ("auc", "tar@1e-3", "accuracy")

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The figures of one model with the second picture, and with both, gone through F2 tokens."""

    one_side: Roc
    both_sides: Roc


@dataclass(frozen=True, slots=True)
class Wanted:
    """The threshold for a wanted FAR; the bound is the upper end of its 95 % interval."""

    far: float
    impostors_needed: int
    threshold: float | None
    upper: float | None
    tar: float | None
    tar_at_upper: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Figures of the models in order, FP32 first. `agreement` needs two, `boot` resamples."""

    pairs: Pairs
    rocs: tuple[Roc, ...]
    agreement: Agreement | None
    boot: Bootstrap | None
    tokens: tuple[Tokens, ...]

    def wanted(self, far: float, model: int = 0) -> Wanted:
        """Where to set the threshold of a model for a FAR; the upper bound as it is stored."""
        roc = self.rocs[model]
        point = roc.at(far)
        found = self.interval(f"threshold@{far_name(far)}", model)
        upper = None if found is None else rounded_up(found[1])
        at_upper = None if upper is None else roc.sweep.tar_at(upper)
        return Wanted(far, point.impostors_needed, point.threshold, upper, point.tar, at_upper)

    def interval(self, name: str, model: int) -> Interval | None:
        """The 95 % interval of a figure, None without resamples."""
        return None if self.boot is None else self.boot.interval(name, model)

    def drop_interval(self, name: str) -> Interval | None:
        """The 95 % interval of a drop, None without resamples."""
        span = None if self.boot is None else self.boot.drop(name)
        # A drop of EER is a rise.
        return (-span[1], -span[0]) if span is not None and name == "eer" else span

    def document(self) -> dict[str, object]:
        """Everything for JSON; the last model's figures stand at the top too."""
        models = [self._model(number) for number in range(len(self.rocs))]
        document: dict[str, object] = {"mean_cosine": None, "min_cosine": None, "mean_mae": None}
        if self.agreement is not None:
            document |= self.agreement.document()
        document |= models[-1]
        document |= {
            "pictures": len(self.pictures),
            "people": None if self.pairs.person is None else self._people(),
            "pairs": len(self.pairs),
            "bootstrap": self._bootstrap(),
            "fp32": models[0],
        }
        if len(models) == 2:
            names = [name for name in figures(self.rocs[0]) if not name.startswith("threshold")]
            document["int8"] = models[1]
            document["drop"] = {
                **drops(*self.rocs),
                "intervals": {name: self.drop_interval(name) for name in names},
            }
        return document

    @property
    def pictures(self) -> set[int]:
        """The pictures that stand in a pair, by number."""
        return {*self.pairs.left.tolist(), *self.pairs.right.tolist()}

    def _people(self) -> int:
        person = self.pairs.person
        return 0 if person is None else len({int(person[i]) for i in self.pictures})

    def _bootstrap(self) -> dict[str, object] | None:
        if self.boot is None:
            return None
        return {
            "drawn": self.boot.unit,
            "units": self.boot.units,
            "resamples": self.boot.resamples,
            "confidence": 0.95,
        }

    def _model(self, number: int) -> dict[str, object]:
        roc = self.rocs[number]
        document = roc.document()
        document["intervals"] = {
            name: self.interval(name, number)
            for name in ("auc", "eer", *_operating_names(roc, "tar", "threshold"))
        }
        if self.tokens:
            tokens = self.tokens[number]
            document["f2"] = {
                "one_side": tokens.one_side.document(),
                "both_sides": tokens.both_sides.document(),
                "loss_pp": {
                    "one_side": losses_pp(roc, tokens.one_side),
                    "both_sides": losses_pp(roc, tokens.both_sides),
                },
                "worst_loss_pp": self.worst_token_loss(number),
            }
        return document

    def worst_token_loss(self, model: int) -> float:
        """The largest loss in percentage points of what is held to MOST_TOKEN_LOSS_PP."""
        tokens = self.tokens[model]
        losses = [
            losses_pp(self.rocs[model], after).get(name)
            for after in (tokens.one_side, tokens.both_sides)
            for name in _HELD
        ]
        return max(loss for loss in losses if loss is not None)


def study(
    pairs: Pairs,
    matrices: Sequence[FloatArray],
    *,
    fars: Sequence[float] = FARS,
    resamples: int = 0,
    seed: int = 0,
    tokens: bool = False,
) -> Study:
    """Measure each model's unit rows (pictures, dim) over the pairs."""
    scores = [pairs.scores(matrix) for matrix in matrices]

    def measured(left: FloatArray, right: FloatArray) -> Roc:
        return measure(pairs.scores(left, right), pairs.same, fold=pairs.fold, fars=fars, seed=seed)

    sent = [through_tokens(matrix) for matrix in matrices] if tokens else []
    boot = None
    if resamples:
        boot = bootstrap(
            scores, pairs.same, pairs.people, fars=fars, resamples=resamples, seed=seed
        )
    return Study(
        pairs,
        tuple(measured(matrix, matrix) for matrix in matrices),
        agreement(*matrices) if len(matrices) == 2 else None,
        boot,
        tuple(
            Tokens(measured(matrix, token), measured(token, token))
            for matrix, token in zip(matrices, sent, strict=bool(sent))
        ),
    )


def figures(roc: Roc) -> Figures:
    """The figures that can be set against another model's, by name."""
    found: Figures = {"auc": roc.auc, "eer": roc.eer}
    for point in roc.operating:
        found[f"tar@{far_name(point.wanted_far)}"] = point.tar
    found["accuracy"] = None if roc.accuracy is None else roc.accuracy.mean
    for point in roc.operating:
        found[f"threshold@{far_name(point.wanted_far)}"] = point.threshold
    return found


def drops(before: Roc, after: Roc) -> Figures:
    """What is lost from one to the other: positive is worse, also for EER. No thresholds."""
    first, second = figures(before), figures(after)
    lost: Figures = {}
    for name, value in first.items():
        other = second[name]
        if name.startswith("threshold"):
            continue
        sign = -1.0 if name == "eer" else 1.0
        lost[name] = None if value is None or other is None else sign * (value - other)
    return lost


def losses_pp(before: Roc, after: Roc) -> Figures:
    """The same in percentage points."""
    return {
        name: None if loss is None else 100 * loss for name, loss in drops(before, after).items()
    }


def _operating_names(roc: Roc, *kinds: str) -> list[str]:
    return [f"{kind}@{far_name(point.wanted_far)}" for point in roc.operating for kind in kinds]
