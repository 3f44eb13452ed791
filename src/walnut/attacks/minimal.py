"""What the minimal-perturbation attacks share: the nearest point so far, and the record.

Each looks for min ‖x̂ − x‖ such that the network is fooled at x̂. They run on the continuous batch of
:mod:`walnut.core.rows`; what they add to it is here: examples that are wrong already are answered with
themselves after one pass, the nearest adversarial point of each row is kept, and at the end it may be
drawn towards the example for as long as it still fools (``refine`` passes of a search on the line).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from walnut.core.constraints import box, l0, l2, unconstrained
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.method import Method
from walnut.core.objectives import classified_as, misclassified
from walnut.core.queried import Queried, check_numbers, label_error, whole
from walnut.core.rows import Run
from walnut.core.types import Adversarial, Criterion, Model, perturbation_norms

from .approach import Answers, Bounds, rows_like, size, slack
from .common import Norm, check_bounds, prepare

_FIRST = 0.02  # share of the way that the search at the end gives up at first
_SIDE = 0.05  # how far it aims to the side that fools, as a share of the step


@dataclass
class Record:
    """The rows of an :class:`Adversarial` while they are found."""

    x0: Tensor
    x: Tensor
    success: Bool[Tensor, " n"]
    prediction: Int[Tensor, " n"]
    first: Int[Tensor, " n"]
    forward: Int[Tensor, " n"]
    backward: Int[Tensor, " n"]
    logits: Float[Tensor, " n k"]  # at the examples

    @classmethod
    def asked(
        cls, net: Queried, x: Tensor, y: Tensor, criterion: Criterion, batch_size: int
    ) -> Record:
        """Ask about the examples themselves: what fools already is its own nearest point."""
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        record = cls(
            x, x.clone(), none.bool(), none, none - 1, none.clone(), none.clone(),
            x.new_empty(len(x), 0),
        )  # fmt: skip
        rows = torch.arange(len(x), device=x.device)
        record.logits = record.check(net, y, rows, criterion, batch_size)
        record.first[record.success] = 0
        return record

    def check(
        self, net: Queried, y: Tensor, rows: Tensor, criterion: Criterion, batch_size: int
    ) -> Float[Tensor, " m k"]:
        """Recompute success and prediction of some rows by a fresh forward pass; return its logits."""
        seen = []
        for part in rows.split(batch_size):
            with torch.no_grad():
                logits = net(self.x[part])
            if wrong := label_error(y, net.classes):
                raise wrong
            if not bool(logits.isfinite().all()):
                row = int(part[(~logits.isfinite().all(1)).nonzero()[0, 0]])
                raise WalnutError(
                    f"the network's answer for example {row} is not a number (NaN or infinite): "
                    "check its weights and the input range"
                )
            self.success[part] = criterion(logits, y[part])
            self.prediction[part] = logits.argmax(1)
            self.forward[part] += 1
            seen.append(logits.detach())
        return torch.cat(seen)

    def take(self, rows: Tensor, found: Adversarial) -> None:
        """Put the result of a run on some rows in their places and add its passes."""
        self.x[rows], self.success[rows] = found.x, found.success
        self.prediction[rows], self.first[rows] = found.prediction, found.first_success
        self.forward[rows] += found.forward
        self.backward[rows] += found.backward

    def nearer(self, rows: Tensor, found: Adversarial, norm: Norm) -> None:
        """Take from another attempt what fools nearer by, or what failed where nothing fools yet."""
        length, before = (
            size(found.x - self.x0[rows], norm),
            size(self.x[rows] - self.x0[rows], norm),
        )
        had = self.success[rows]
        better = torch.where(found.success, ~had | (length < before), ~had)
        first = found.success & (self.first[rows] < 0)
        self.first[rows[first]] = found.first_success[first]
        self.x[rows[better]], self.success[rows[better]] = found.x[better], found.success[better]
        self.prediction[rows[better]] = found.prediction[better]
        self.forward[rows] += found.forward
        self.backward[rows] += found.backward

    def refine(
        self, net: Queried, y: Tensor, norm: Norm, passes: int, attack: MinimalAttack
    ) -> None:
        """Draw each adversarial point towards its example, one forward pass at a time.

        x0 + t · (x − x0) with t in (0, 1], where the line through the last two margins meets the
        boundary; in L0 the share t of the entries that changed most, by bisection.
        """
        moved = self.success & (size(self.x - self.x0, norm) > 0)
        for part in moved.nonzero()[:, 0].split(attack.batch_size):
            x0, far = self.x0[part], self.x[part]
            before = attack.margin(self.logits[part], y[part])
            search = Line(before, bisect=norm is l0)
            for _ in range(passes):
                x = between(x0, far, search.share, norm)
                with torch.no_grad():
                    logits = net(x)
                self.forward[part] += 1
                margin = attack.margin(logits, y[part]) - slack(logits)
                search.tell(margin)
                fools = margin > 0
                self.x[part[fools]] = x[fools]
                self.prediction[part[fools]] = logits.argmax(1)[fools]

    def close(self, began: float, name: str, seed: int) -> Adversarial:
        """Return the finished record."""
        return Adversarial(
            self.x, self.success, self.prediction, self.first, self.forward, self.backward,
            perturbation_norms(self.x, self.x0), time.perf_counter() - began, name, seed,
        )  # fmt: skip


class Line:
    """Where on the way from the example (0) to a point that fools (1) the margin passes zero.

    Regula falsi: each share asked is where the line through the last two answers passes zero, a little
    to the side that fools, and within the bracket. The first is just before the end, because attacks
    that close in leave little to gain.
    """

    def __init__(self, before: Float[Tensor, " b"], bisect: bool = False) -> None:
        self.bisect = bisect
        self.low = torch.zeros_like(before)
        self.high = torch.ones_like(before)
        self.share = self.high / 2 if bisect else self.high - _FIRST
        self.last = self.low, before

    def tell(self, margin: Float[Tensor, " b"]) -> None:
        """Take the margin at ``share`` and choose the next."""
        fools, asked = margin > 0, self.share
        self.low = torch.where(fools, self.low, asked)
        self.high = torch.where(fools, asked, self.high)
        middle, width = (self.low + self.high) / 2, self.high - self.low
        slope = (margin - self.last[1]) / (asked - self.last[0])
        way = margin / slope * torch.where(fools, 1 - _SIDE, 1 + _SIDE)
        aim = torch.where((slope > 0) & way.isfinite(), asked - way, middle)
        # the slope of far answers is not that of near ones: steps back grow by and by
        back = self.high - 4 * (1 - self.high).clamp_min(_FIRST)
        aim = torch.where(fools, torch.maximum(aim, back), aim)
        aim = torch.minimum(torch.maximum(aim, self.low + 0.1 * width), self.high - 0.1 * width)
        self.last, self.share = (asked, margin), middle if self.bisect else aim


def between(x0: Tensor, far: Tensor, share: Tensor, norm: Norm) -> Tensor:
    """Return a point between ``x0`` and ``far``, ``share`` of the way in ``norm``."""
    if norm is not l0:
        x = x0 + rows_like(share, x0) * (far - x0)
        return x.clamp(torch.minimum(x0, far), torch.maximum(x0, far))
    rank = (far - x0).flatten(1).abs().argsort(dim=1, descending=True, stable=True).argsort(1)
    keep = (share * size(far - x0, l0)).ceil()
    return torch.where((rank < keep[:, None]).reshape(x0.shape), far, x0)


@contextmanager
def held(model: Any) -> Iterator[None]:
    """Hold the network still, with gradients on whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        yield


@dataclass(frozen=True, kw_only=True, repr=False)
class MinimalAttack:
    """What every minimal attack is told, and how it is run: call it with ``(model, x, y)``.

    Args:
        targeted: ``y`` are targets to reach.
        refine: forward passes that draw the result towards the example at the end.
        bounds: the box inputs live in; None for none.
        mask: bool, shaped like one example (or broadcasting to it): the entries that may change.
    """

    targeted: bool = False
    refine: int = 8
    bounds: Bounds = (0.0, 1.0)
    mask: Tensor | None = field(default=None, repr=False, compare=False)
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    norm: ClassVar[Any] = l2
    stops: ClassVar[bool] = False  # whether a row leaves at its first success

    def __repr__(self) -> str:
        """Return the record: the fields, norms by their names."""
        parts = [(f.name, getattr(self, f.name)) for f in fields(self) if f.repr]
        shown = (f"{k}={v.__name__ if isinstance(v, type) else repr(v)}" for k, v in parts)
        return f"{type(self).__name__}({', '.join(shown)})"

    def method(self, x: Tensor, answers: Answers) -> tuple[Method, int]:
        """Return what a step is, and how many there are."""
        raise NotImplementedError

    def criterion(self) -> Criterion:
        """Return what counts as success."""
        return classified_as() if self.targeted else misclassified()

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how much each row fools."""
        return Answers(self.targeted)(lambda _: logits, logits, y)

    def checked(self, model: Model, x: Tensor, y: Tensor) -> None:
        """Say what does not fit, in the user's words."""
        check_bounds(self.bounds)
        check_numbers(self.seed, self.batch_size)
        limit = unconstrained() if self.bounds is None else box(*self.bounds)
        prepare(model, x, limit)
        if len(x) != len(y):
            raise WalnutError(f"there are {len(x)} examples but {len(y)} labels")
        if len(x) == 0:
            raise WalnutError("there is nothing to attack: x holds no examples")

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Attack the rows that are not decided and put what is found into the record."""
        answers = Answers(self.targeted)
        method, steps = self.method(x[rows], answers)
        run = Run(
            answers, self.criterion(), steps, early_stop=self.stops, keep_best=self.stops,
            seed=self.seed, batch_size=self.batch_size, drop=self.drop, name=repr(self),
        )  # fmt: skip
        record.take(rows, run(method, model, x[rows], y[rows]))

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Find the nearest example of each of ``x`` (n, ...) that fools the network.

        Raises:
            WalnutError: something does not fit; the message says what and how to mend it.
        """
        y = whole(y)
        self.checked(model, x, y)
        began, net = time.perf_counter(), Queried(model)
        outer = torch.is_inference_mode_enabled()
        with held(model):
            x, y = (x.clone(), y.clone()) if outer else (x.detach(), y)
            record = Record.asked(net, x, y, self.criterion(), self.batch_size)
            rows = (~record.success).nonzero()[:, 0]
            if len(rows):
                self.search(record, rows, model, x, y)
            if self.refine:
                record.refine(net, y, self.norm, self.refine, self)
            return record.close(began, repr(self), self.seed)
