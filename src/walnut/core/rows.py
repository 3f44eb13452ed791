"""The continuous batch: examples enter, take steps, and leave at the step that decides them.

This is the one place where an attack's steps are repeated; :mod:`ascend` and :mod:`search` say what a
step is. The batch stays full: when a row is decided, the next example takes its place, each row at its
own step and restart. Where there is room for it, the restarts of a row that withstood its first run go on
side by side, in *lanes* (all of them, where it begins at what withstood another attack): the answer is that
of the first restart that succeeds, as if they had run one after the other. What a row draws and does is a
function of its own content only, so a verdict does not depend on the batch, beyond the rounding of the
network itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .batch import Batch
from .draws import Draws
from .errors import WalnutError
from .frozen import frozen
from .method import Method, Resumable
from .queried import Queried, check_data, label_error
from .quick import quick
from .types import Adversarial, Criterion, Model, Objective, perturbation_norms


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

    def __call__(
        self, method: Method, model: Model, x: Tensor, y: Tensor, begin: Tensor | None = None
    ) -> Adversarial:
        """Run ``method`` on every example of ``x`` (n, ...) and return the record.

        ``begin``: where each begins, if not at the example; the method is a :class:`Resumable`.
        """
        check_data(x, y, self)
        began = time.perf_counter()
        outer = torch.is_inference_mode_enabled()
        with torch.inference_mode(False), torch.enable_grad(), frozen(model), quick(model):
            if outer:
                x, y = x.clone(), y.clone()
            work = _Work(self, method, Queried(model), x.detach(), y, begin)
            while work.step():
                pass
            return work.record(began)


class _Work:
    """One run in progress."""

    def __init__(
        self, run: Run, method: Method, model: Queried, x: Tensor, y: Tensor, begin: Tensor | None
    ) -> None:
        self.run, self.method, self.model, self.n = run, method, model, len(x)
        self.begin = begin
        alone = not (run.early_stop and run.keep_best and run.drop)
        room = 1 if alone else run.batch_size // max(self.n, 1)
        self.lanes = max(1, min(room, run.restarts))
        self.x, self.y, self.draws = x, y, Draws.of(x, run.seed)
        self.entered = 0
        self.batch: Batch | None = None
        counts = torch.zeros(self.lanes * self.n, dtype=torch.int64, device=x.device)
        self.won = torch.full_like(counts[: self.n], run.restarts)  # the lowest that succeeded
        self.out = x.repeat(self.lanes, *[1] * (x.ndim - 1))
        self.value = torch.full_like(counts, float("-inf"), dtype=x.dtype)
        self.success, self.checked = counts.bool(), counts.bool()
        self.at, self.first = counts - 1, counts - 1
        self.logits = torch.empty(len(counts), 0, device=x.device)
        self.forward, self.backward = counts.clone(), counts.clone()

    # -- rows in --------------------------------------------------------------------------------
    def _draws(self, index: Tensor, restart: Tensor, step: Tensor) -> Draws:
        return self.draws.rows(index % self.n).fold(restart).fold(step)

    def _enter(self, index: Tensor, restart: Tensor) -> Batch:
        x0, step = self.x[index % self.n], torch.zeros_like(index)
        start = self.method.start(x0, restart, self._draws(index, restart, step - 1))
        if self.begin is not None:
            if not isinstance(self.method, Resumable):
                raise WalnutError(f"{type(self.method).__name__} cannot begin elsewhere than at x")
            start = self.method.resume(start, self.begin[index % self.n])
        no = torch.zeros_like(index, dtype=torch.bool)
        worst = torch.full_like(index, float("-inf"), dtype=x0.dtype)
        unasked = torch.zeros(len(index), self.model.classes, device=x0.device)
        return Batch(
            index, step, restart, no, x0, self.y[index % self.n], start, x0, worst, step, no, unasked, no,
            step - 1, step, step,
        )  # fmt: skip

    def _admit(self) -> None:
        room = self.run.batch_size - (0 if self.batch is None else len(self.batch.index))
        whole = self.n if self.begin is None else self.n * self.lanes
        new = min(room, whole - self.entered)
        if new > 0:
            index = torch.arange(self.entered, self.entered + new, device=self.x.device)
            rows = self._enter(index, index // self.n)
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
        leaving = self._done(batch)
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

    def _done(self, batch: Batch) -> Tensor:
        """Say which rows leave: they are decided, or a lower restart of the example was."""
        if not self.run.drop:
            return torch.zeros_like(batch.decided)
        if self.lanes == 1:
            return batch.decided
        row = batch.index % self.n
        fooled = torch.where(batch.decided, batch.restart, self.run.restarts)
        self.won.scatter_reduce_(0, row, fooled, "amin")
        return batch.decided | (batch.restart > self.won[row])

    def _look(self, batch: Batch) -> Batch:
        """Ask young rows without a gradient: who is decided leaves and saves a backward pass."""
        young = (batch.step > 0) & (batch.step <= self.run.look) & (batch.restart == 0)
        if not bool(young.any()):
            return batch
        rows, others = batch.split(young)
        with torch.no_grad():
            point = self.method.point(rows.state)
            self._measure(rows, lambda value: (value(point), None))
        leaving, staying = rows.split(rows.decided)
        self._leave(leaving)
        return others.join(staying)

    def _measure(self, batch: Batch, evaluate: Any) -> tuple[Tensor, Any]:
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
        self, batch: Batch, point: Tensor, values: Tensor, logits: Tensor, fresh: bool
    ) -> None:
        """Keep the best point of each row, and say which rows are decided."""
        if batch.best_logits.shape != logits.shape:
            batch.best_logits = torch.zeros_like(logits)
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
        batch.keep(better, point, values, at, success, logits, fresh)
        if self.run.early_stop:
            batch.decided = batch.decided | success

    def _turn(self, batch: Batch) -> Batch:
        """Handle rows that have made their last step: look at where they ended, leave or restart."""
        ended = batch.step >= self.run.steps
        if not bool(ended.any()):
            return batch
        rows, batch = batch.split(ended)
        with torch.no_grad():
            point = self.method.point(rows.state)
            self._measure(rows, lambda value: (value(point), None))
        done = self._done(rows)
        first = rows.index[(rows.restart == 0) & ~done]
        again = (rows.restart + self.lanes < self.won[rows.index % self.n]) & ~done
        rows, leaving = rows.split(again)
        self._leave(leaving)
        if self.lanes > 1 and len(first) and self.begin is None:
            lane = torch.arange(1, self.lanes, device=first.device).repeat_interleave(len(first))
            batch = batch.join(self._enter(first.repeat(self.lanes - 1) + lane * self.n, lane))
        if len(rows.index):
            fresh = self._enter(rows.index, rows.restart + self.lanes)
            own = {"step", "restart", "state"}
            batch = batch.join(
                Batch(**{k: vars(fresh if k in own else rows)[k] for k in vars(rows)})
            )
        return batch

    # -- rows out -------------------------------------------------------------------------------
    def _leave(self, rows: Batch) -> None:
        if len(rows.index) == 0:
            return
        self.out[rows.index] = rows.best_x.to(self.out.dtype)
        self.value[rows.index], self.at[rows.index] = rows.best_value, rows.best_at
        self.success[rows.index] = rows.best_success
        if self.logits.shape[1] != rows.best_logits.shape[1]:
            self.logits = rows.best_logits.new_zeros(len(self.at), rows.best_logits.shape[1])
        self.logits[rows.index] = rows.best_logits
        self.checked[rows.index] = rows.checked
        self.first[rows.index] = rows.first
        self.forward[rows.index] = rows.forward
        self.backward[rows.index] = rows.backward

    def _gather(self) -> None:
        """Keep the best lane of each example: the first that fools, else the highest value."""
        if self.lanes == 1:
            return
        lanes, row = (self.lanes, self.n), torch.arange(self.n, device=self.x.device)
        fools, value, at = (t.reshape(lanes) for t in (self.success, self.value, self.at))
        late = torch.iinfo(at.dtype).max
        top = fools | (~fools.any(0) & (value == value.amax(0)) & (at >= 0))
        best = torch.where(top, torch.where(at < 0, late, at), late).argmin(0) * self.n + row
        self.out = self.out[best]
        self.success, self.checked = self.success[best], self.checked[best]
        self.first, self.logits = self.first[best], self.logits[best]
        self.forward = self.forward.reshape(lanes).sum(0)
        self.backward = self.backward.reshape(lanes).sum(0)

    def record(self, began: float) -> Adversarial:
        """Ask the network afresh about every returned example that was last seen with a gradient."""
        self._gather()
        with torch.no_grad():
            left = (~self.checked).nonzero()[:, 0]
            for rows in left.split(self.run.batch_size) if len(left) else ():  # not all take none
                logits = self.model.module(self.out[rows])
                self.success[rows] = self.run.criterion(logits, self.y[rows])
                self.logits[rows] = logits.to(self.logits)
                self.forward[rows] += 1
        return Adversarial(
            x=self.out,
            success=self.success,
            prediction=self.logits.argmax(1),
            first_success=self.first,
            forward=self.forward,
            backward=self.backward,
            norms=perturbation_norms(self.out, self.x),
            seconds=time.perf_counter() - began,
            attack=self.run.name,
            seed=self.run.seed,
            logits=self.logits,
        )
