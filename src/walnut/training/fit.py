"""The one training loop: descend an objective in the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Objective, Progress

from .batches import Batches
from .engine import Engine, Worker, single
from .optimizers import Optimizer, sgd
from .run import History, Run
from .schedules import Schedule, cosine


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    *,
    epochs: int,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    keep_best: bool = False,
    after_step: Sequence[Callable[[int], object]] = (),
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> History:
    """Train a network in place: θ ← θ − lr · optimiser(∇_θ mean_i objective(θ, x_i, y_i)).

    Deterministic by ``seed`` (dropout and the like) and ``batches.seed`` on one machine with one
    number of threads; torch's global random state is left as it was. The network ends in eval mode.

    Args:
        model: the network; parameters that do not require a gradient stay as they are.
        objective: ``(model, x, y) -> (b,)``; if it is an ``nn.Module``, its parameters train too.
        batches: the examples.
        epochs: passes over the examples.
        optimizer: built here, after ``represent`` has changed the parameters; default ``sgd()``.
        schedule: of the learning rate over the whole run; default ``cosine()``.
        validate: called with the network after each epoch; its number (higher is better) is kept.
        keep_best: end with the weights of the epoch with the highest validation.
        after_step: called after each step with the number of steps done in all.
        checkpoint: a file; where it exists the run goes on from it, bit for bit as if it had not
            stopped, and where the run is done the result is read from it.
        checkpoint_every: steps between checkpoints, besides the one after each epoch.
        seed: of torch's random numbers during the run.
        progress: called as ``progress("training", steps done, steps in all)``.
        engine: where to compute: ``single(device)``, or ``fabric(devices)`` for several.

    Raises:
        WalnutError: a loss that is not finite (the last checkpoint stays), an objective that gives
            anything but one value per example, a checkpoint of another run.

    >>> import torch
    >>> net = nn.Linear(2, 2)
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(8, 1)
    >>> ce = lambda model, x, y: nn.functional.cross_entropy(model(x), y, reduction="none")
    >>> fit(net, ce, Batches(x, x.argmax(1), 4), epochs=20).rows[-1]["train_loss"] < 0.1
    True
    """
    if epochs < 0 or (keep_best and validate is None):
        raise WalnutError("epochs must not be negative, and keep_best needs a validation")

    def work(worker: Worker) -> tuple[History, bytes | None]:
        run = Run(
            model, objective, batches, epochs, optimizer or sgd(), schedule or cosine(), worker,
            validate, keep_best, after_step, checkpoint, checkpoint_every, seed, progress,
        )  # fmt: skip
        history = run.all()
        return history, to_bytes(_flat(run.states())) if worker.world > 1 else None

    history, trained = (engine or single()).launch(work)
    if trained is not None:  # in other processes, whose memory is not ours
        _take_over({"model": model, "objective": objective}, from_bytes(trained))
    model.eval()
    return history


def _flat(states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{part}/{name}": value.detach().cpu().contiguous().clone()
        for part, state in states.items()
        for name, value in state.items()
    }


def _take_over(parts: dict[str, object], found: dict[str, Tensor]) -> None:
    """Put the states that another process returned into our modules."""
    for part, module in parts.items():
        if isinstance(module, nn.Module):
            cut = f"{part}/"
            module.load_state_dict(
                {k.removeprefix(cut): v for k, v in found.items() if k.startswith(cut)}
            )
