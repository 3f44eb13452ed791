"""The cascade: stage after stage over what still stands, each outcome in the ledger as it happens."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.constraints import l1, l2, linf, measured
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin
from walnut.core.queried import label_error
from walnut.core.types import Adversarial, Attack, Model, Progress

from .accuracy import predict
from .ledger import Ledger, Outcome
from .stage import Reached, Setting, Stage, Suspicion
from .survey import StageRecord, Survey

NAMES: dict[Any, str] = {linf: "linf", l2: "l2", l1: "l1"}
_ORDERS: dict[Any, float] = {linf: float("inf"), l2: 2, l1: 1}
_SLACK = 1e-6


@dataclass
class Cascade:
    """The stages of a plan, run on one network.

    Args:
        attacked: what attacks climb: the network, or its straight-through twin.
        setting: norm, radius, box, seed.
        survey: what is known of each example; filled as stages run.
        ledger: where outcomes are kept.
        cost: forward passes that one call of ``attacked`` takes (an average over several takes more).
        progress: called as stages run.
    """

    attacked: Model
    setting: Setting
    survey: Survey
    ledger: Ledger
    cost: int = 1
    progress: Progress | None = None

    def run(self, stages: tuple[Stage, ...], suspicion: Suspicion) -> None:
        """Run every stage that has a reason and rows."""
        for stage in stages:
            rows = stage.rows(self.survey)
            why = stage.when(self.survey, suspicion)
            if why and len(rows):
                self.stage(stage, rows, why)

    def stage(self, stage: Stage, rows: Int[Tensor, " m"], why: str) -> StageRecord:
        """Run one stage on some rows, batch by batch, and note what fell."""
        number, attack = len(self.survey.stages), repr(stage.make(self.setting))
        standing = set(self.survey.standing.tolist())
        forward, backward, seconds = 0, 0, 0.0
        for at, batch in enumerate(rows.split(self.setting.batch_size)):
            if self.progress is not None:
                self.progress(stage.name, at * self.setting.batch_size, len(rows))
            outcome = self.ledger.cell(
                f"{number:02d}-{stage.name.replace(' ', '-')}-{at:04d}", batch,
                lambda batch=batch: self.attempt(stage.make(self._at(batch)), batch),  # type: ignore[misc]
            )  # fmt: skip
            self.survey.take(number, batch, outcome)
            forward += int(outcome["forward"].sum())
            backward += int(outcome["backward"].sum())
            seconds += float(outcome["seconds"])
        if self.progress is not None:
            self.progress(stage.name, len(rows), len(rows))
        left = set(self.survey.standing.tolist())
        broke = tuple(sorted(standing - left))
        done = StageRecord(
            stage.name, attack, stage.family, why, len(rows), len(broke),
            forward, backward, seconds, broke,
        )  # fmt: skip
        self.survey.stages.append(done)
        return done

    def _at(self, rows: Int[Tensor, " m"]) -> Setting:
        """Return the setting with where the stages before ended on some rows."""
        return replace(self.setting, reached=Reached(self.survey.ends(rows)))

    def clean(self) -> None:
        """Ask about the examples themselves: what is wrong untouched counts as broken."""
        survey = self.survey
        for at, rows in enumerate(torch.arange(len(survey.y)).split(self.setting.batch_size)):
            rows = rows.to(survey.y.device)
            found = self.ledger.cell(f"clean-{at:04d}", rows, lambda rows=rows: self._ask(rows))  # type: ignore[misc]
            survey.take_clean(rows, found["prediction"], self.cost)

    def _ask(self, rows: Int[Tensor, " m"]) -> Outcome:
        x, y = self.survey.x[rows], self.survey.y[rows]
        logits = predict(self.attacked, x, self.setting.batch_size)
        if error := label_error(y, logits.shape[1]):
            raise error
        if not bool(logits.isfinite().all()):
            row = int(rows[(~logits.isfinite().all(1)).nonzero()[0, 0]])
            raise WalnutError(
                f"the network's answer for example {row} is not a number (NaN or infinite): "
                "check its weights and the input range"
            )
        return {"prediction": logits.argmax(1)}

    def attempt(self, attack: Attack, rows: Int[Tensor, " m"]) -> Outcome:
        """Attack some rows; a success counts only inside the ball, on a fresh pass."""
        x, y = self.survey.x[rows], self.survey.y[rows]
        began = time.perf_counter()
        found = attack(self.attacked, x, y)  # type: ignore[arg-type]
        radius = found.norms[NAMES[self.setting.norm]]
        made = measured(found.x, x, _ORDERS[self.setting.norm])
        inside = made <= self.setting.eps * (1 + _SLACK) + _SLACK
        success = found.success & inside
        known = torch.where(found.success, radius, torch.full_like(radius, float("inf")))
        forward = found.forward.clone()
        hope = torch.full_like(radius, float("-inf"))
        failed = (~found.success).nonzero()[:, 0]  # one that fools outside says nothing of here
        if len(failed):
            hope[failed] = self.hope(found, failed, y)
            forward[failed] += found.logits is None
        return {
            "success": success, "prediction": found.prediction, "first": found.first_success,
            "forward": self.cost * forward, "backward": self.cost * found.backward,
            "radius": known, "hope": hope, "x": found.x,
            "seconds": torch.tensor(time.perf_counter() - began, dtype=torch.float64),
        }  # fmt: skip

    def hope(
        self, found: Adversarial, rows: Int[Tensor, " m"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " m"]:
        """Return the margin that failed attempts reached: the nearer to 0, the more hope."""
        if found.logits is not None:
            logits = found.logits[rows]
        else:
            logits = predict(self.attacked, found.x[rows], self.setting.batch_size)
        return margin()(lambda _: logits, found.x[rows], y[rows]).double()
