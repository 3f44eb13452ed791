"""The continuous batch: examples enter, take steps, and leave at the step that decides them.

This is the one place where an attack's steps are repeated; :mod:`ascend` and :mod:`search` say what a
step is. The batch stays full: when a row is decided, the next example takes its place, each row at its
own step and restart. What a row draws and does is a function of its own content only, so a verdict does
not depend on the batch, beyond the rounding of the network itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from .draws import Draws
from .errors import WalnutError
from .frozen import frozen
from .method import Method
from .queried import Queried, check_data, label_error
from .quick import quick
from .types import Adversarial, Criterion, Model, Objective, perturbation_norms


@dataclass
class _Batch:
    """The rows at work: where each stands, and the best it has seen."""

    index: Tensor  # (b,) position in the data set
    step: Tensor  # (b,)
    restart: Tensor  # (b,)
    decided: Tensor  # (b,) bool
    x0: Tensor
    y: Tensor
    state: Any
    best_x: Tensor
    best_value: Tensor  # (b,) of best_x; -inf before any candidate
    best_success: Tensor  # (b,) bool
    best_prediction: Tensor  # (b,)
    checked: Tensor  # (b,) bool, whether best_x was last seen by a pass without gradients
    first: Tensor  # (b,) step of the first success, -1 before any
    forward: Tensor  # (b,) passes
    backward: Tensor  # (b,) passes

    def take(self, rows: Tensor) -> _Batch:
        """Return some of the rows."""
        return _Batch(**tree_map_only(Tensor, lambda t: t[rows], dict(vars(self))))

    def join(self, other: _Batch) -> _Batch:
        """Return the rows of both."""
        mine, theirs = dict(vars(self)), dict(vars(other))
        return _Batch(**tree_map(lambda a, b: torch.cat([a, b]), mine, theirs))


@dataclass(frozen=True)
class Run:
    """How rows pass through the batch; see :func:`walnut.core.ascend.ascend` for each field.

    ``look``: steps of the first run before whose gradient a row is asked whether it is decided.
    """

    objective: Objective
    criterion: Criterion
    steps: int
    restarts: int = 1
    from_start: bool = False
    early_stop: bool = True
    keep_best: bool = True
    seed: int = 0
    batch_size: int = 256
    drop: bool = True
    name: str = ""
    look: int = 0

    def __call__(self, method: Method, model: Model, x: Tensor, y: Tensor) -> Adversarial:
        """Run ``method`` on every example of ``x`` (n, ...) and return the record."""
        check_data(x, y, self)
        began = time.perf_counter()
        outer = torch.is_inference_mode_enabled()
        with torch.inference_mode(False), torch.enable_grad(), frozen(model), quick(model):
            if outer:
                x, y = x.clone(), y.clone()
            work = _Work(self, method, Queried(model), x.detach(), y)
            while work.step():
                pass
            return work.record(began)


class _Work:
    """One run in progress."""

    def __init__(self, run: Run, method: Method, model: Queried, x: Tensor, y: Tensor) -> None:
        n = len(x)
        self.run, self.method, self.model, self.x, self.y = run, method, model, x, y
        self.draws = Draws.of(x, run.seed)
        self.entered = 0
        self.batch: _Batch | None = None
        self.out = x.clone()
        self.success = torch.zeros(n, dtype=torch.bool, device=x.device)
        self.prediction = torch.zeros(n, dtype=torch.int64, device=x.device)
        self.checked = torch.zeros(n, dtype=torch.bool, device=x.device)
        self.first = torch.full((n,), -1, dtype=torch.int64, device=x.device)
        self.forward = torch.zeros(n, dtype=torch.int64, device=x.device)
        self.backward = torch.zeros(n, dtype=torch.int64, device=x.device)

    # -- rows in --------------------------------------------------------------------------------
    def _draws(self, index: Tensor, restart: Tensor, step: Tensor) -> Draws:
        return self.draws.rows(index).fold(restart).fold(step)

    def _enter(self, index: Tensor, restart: Tensor) -> _Batch:
        x0, step = self.x[index], torch.zeros_like(index)
        start = self.method.start(x0, restart, self._draws(index, restart, step - 1))
        no = torch.zeros_like(index, dtype=torch.bool)
        worst = torch.full_like(index, float("-inf"), dtype=x0.dtype)
        return _Batch(
            index, step, restart, no, x0, self.y[index], start, x0, worst, no, step, no,
            step - 1, step, step,
        )  # fmt: skip

    def _admit(self) -> None:
        room = self.run.batch_size - (0 if self.batch is None else len(self.batch.index))
        new = min(room, len(self.x) - self.entered)
        if new > 0:
            index = torch.arange(self.entered, self.entered + new, device=self.x.device)
            rows = self._enter(index, torch.zeros_like(index))
            self.batch = rows if self.batch is None else self.batch.join(rows)
            self.entered += new

    # -- one step -------------------------------------------------------------------------------
    def step(self) -> bool:
        """Advance every row by one step; say whether any is left."""
        self._admit()
        if self.batch is not None and len(self.batch.index):
            self.batch = self._look(self.batch)
            self._admit()
        batch = self.batch
        if batch is None or len(batch.index) == 0:
            return False
        draws = self._draws(batch.index, batch.restart, batch.step)
        values, seen = self._measure(
            batch, lambda value: self.method.evaluate(value, batch.state, draws)
        )
        leaving = batch.decided if self.run.drop else torch.zeros_like(batch.decided)
        if leaving.any():
            self._leave(batch.take(leaving.nonzero()[:, 0]))
            stay = (~leaving).nonzero()[:, 0]
            batch, values = batch.take(stay), values[stay]
            seen = tree_map_only(Tensor, lambda t: t[stay], seen)
            draws = draws.rows(stay)
        progress = batch.step.to(batch.x0.dtype) / self.run.steps
        batch.state = self.method.advance(batch.state, seen, values, batch.x0, progress, draws)
        batch.step = batch.step + 1
        self.batch = self._turn(batch)
        return True

    def _look(self, batch: _Batch) -> _Batch:
        """Ask young rows without a gradient: who is decided leaves and saves a backward pass."""
        young = (batch.step > 0) & (batch.step <= self.run.look) & (batch.restart == 0)
        if not bool(young.any()):
            return batch
        rows, others = batch.take(young.nonzero()[:, 0]), batch.take((~young).nonzero()[:, 0])
        with torch.no_grad():
            point = self.method.point(rows.state)
            self._measure(rows, lambda value: (value(point), None))
        self._leave(rows.take(rows.decided.nonzero()[:, 0]))
        return others.join(rows.take((~rows.decided).nonzero()[:, 0]))

    def _measure(self, batch: _Batch, evaluate: Any) -> tuple[Tensor, Any]:
        """Evaluate the rows, count the passes, and note what is best and what is decided."""
        forward, backward = self.model.forward, self.model.backward
        try:
            values, seen = evaluate(lambda x: self.run.objective(self.model, x, batch.y))
        except (IndexError, RuntimeError) as error:
            raise label_error(batch.y, self.model.classes) or error from None
        point = self.method.point(batch.state).detach()
        logits = self.model.logits_at(point)
        self.model.forget()
        if not math.isfinite(float(values.sum())) and not bool(values.isfinite().all()):
            row = int(batch.index[(~values.isfinite()).nonzero()[0, 0]])
            raise WalnutError(
                f"the network's answer for example {row} is not a number (NaN or infinite): "
                "check its weights and the input range"
            )
        rows = max(len(batch.index), 1)
        batch.forward = batch.forward + (self.model.forward - forward) // rows
        batch.backward = batch.backward + (self.model.backward - backward) // rows
        self._note(batch, point, values, logits, self.model.backward == backward)
        return values, seen

    def _note(
        self, batch: _Batch, point: Tensor, values: Tensor, logits: Tensor, fresh: bool
    ) -> None:
        """Keep the best point of each row, and say which rows are decided."""
        success = self.run.criterion(logits, batch.y)
        at = batch.restart * self.run.steps + batch.step
        batch.first = torch.where(success & (batch.first < 0), at, batch.first)
        if not (self.run.keep_best or self.run.early_stop or fresh):
            return  # the last point is the answer, and this is not the last
        # an untouched example is only an answer where it already fools the network
        better = (success | self.run.from_start | (at > 0)) & ~batch.decided
        if self.run.keep_best:
            higher = (success == batch.best_success) & (values > batch.best_value)
            better = better & (higher | (success > batch.best_success))
        if bool(better.all()):
            batch.best_x, batch.best_success = point, success
            batch.best_value = values.to(batch.best_value)
            batch.best_prediction = logits.argmax(1)
            batch.checked = torch.full_like(success, fresh)
        elif bool(better.any()):
            wide = better.reshape(-1, *[1] * (point.ndim - 1))
            batch.best_x = torch.where(wide, point, batch.best_x)
            batch.best_value = torch.where(better, values.to(batch.best_value), batch.best_value)
            batch.best_success = torch.where(better, success, batch.best_success)
            batch.best_prediction = torch.where(better, logits.argmax(1), batch.best_prediction)
            # a pass without gradients over the very point that is returned is its fresh check
            batch.checked = torch.where(better, fresh, batch.checked)
        if self.run.early_stop:
            batch.decided = batch.decided | success

    def _turn(self, batch: _Batch) -> _Batch:
        """Handle rows that have made their last step: look at where they ended, leave or restart."""
        ended = batch.step >= self.run.steps
        if not bool(ended.any()):
            return batch
        rows = batch.take(ended.nonzero()[:, 0])
        batch = batch.take((~ended).nonzero()[:, 0])
        with torch.no_grad():
            point = self.method.point(rows.state)
            self._measure(rows, lambda value: (value(point), None))
        again = (rows.restart + 1 < self.run.restarts) & ~(rows.decided & self.run.drop)
        self._leave(rows.take((~again).nonzero()[:, 0]))
        if bool(again.any()):
            rows = rows.take(again.nonzero()[:, 0])
            fresh = self._enter(rows.index, rows.restart + 1)
            own = {"step", "restart", "state"}
            batch = batch.join(
                _Batch(**{k: vars(fresh if k in own else rows)[k] for k in vars(rows)})
            )
        return batch

    # -- rows out -------------------------------------------------------------------------------
    def _leave(self, rows: _Batch) -> None:
        self.out[rows.index] = rows.best_x.to(self.out.dtype)
        self.success[rows.index] = rows.best_success
        self.prediction[rows.index] = rows.best_prediction
        self.checked[rows.index] = rows.checked
        self.first[rows.index] = rows.first
        self.forward[rows.index] = rows.forward
        self.backward[rows.index] = rows.backward

    def record(self, began: float) -> Adversarial:
        """Ask the network afresh about every returned example that was last seen with a gradient."""
        with torch.no_grad():
            left = (~self.checked).nonzero()[:, 0]
            for rows in left.split(self.run.batch_size) if len(left) else ():  # not all take none
                logits = self.model.module(self.out[rows])
                self.success[rows] = self.run.criterion(logits, self.y[rows])
                self.prediction[rows] = logits.argmax(1)
                self.forward[rows] += 1
        return Adversarial(
            x=self.out,
            success=self.success,
            prediction=self.prediction,
            first_success=self.first,
            forward=self.forward,
            backward=self.backward,
            norms=perturbation_norms(self.out, self.x),
            seconds=time.perf_counter() - began,
            attack=self.run.name,
            seed=self.run.seed,
        )
