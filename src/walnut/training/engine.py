"""Where a training runs: in this process, or in several that share each batch.

The model is never wrapped: every process computes the gradients of its rows of a batch, and the
gradients are summed. So any objective works, also one that calls the network several times or not
through ``forward`` (a wrapper's hooks would miss those), and state dicts keep their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from walnut.core.errors import WalnutError

Result = TypeVar("Result")


@runtime_checkable
class Worker(Protocol):
    """One process of a training."""

    @property
    def device(self) -> torch.device:
        """Return where this process computes."""
        ...

    @property
    def rank(self) -> int:
        """Return the number of this process, 0 for the one that writes files."""
        ...

    @property
    def world(self) -> int:
        """Return how many processes there are."""
        ...

    def total(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes, in place."""
        ...


@runtime_checkable
class Engine(Protocol):
    """What starts the processes of a training."""

    def launch(self, work: Callable[[Worker], Result]) -> Result:
        """Call ``work`` in every process and return what rank 0 returned."""
        ...


@dataclass(frozen=True)
class single:
    """This process, on one device."""

    where: str = "cpu"
    rank: int = 0
    world: int = 1

    @property
    def device(self) -> torch.device:
        """Return where the training computes."""
        return torch.device(self.where)

    def total(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing: the sum over one process."""

    def launch(self, work: Callable[[Worker], Result]) -> Result:
        """Call ``work`` here."""
        return work(self)


@dataclass(frozen=True)
class fabric:
    """Several processes by Lightning Fabric (extra ``dist``).

    Args:
        devices: how many processes.
        accelerator: "cpu", "cuda", ...
        strategy: how they are started: "ddp_fork" from here (CPU), "ddp" under ``torchrun``.
    """

    devices: int = 2
    accelerator: str = "cpu"
    strategy: str = "ddp_fork"

    def launch(self, work: Callable[[Worker], Result]) -> Result:
        """Call ``work`` in every process and return what rank 0 returned."""
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise WalnutError(
                "training on several devices needs Lightning Fabric: pip install 'walnut-nn[dist]'"
            ) from error
        started = Fabric(accelerator=self.accelerator, devices=self.devices, strategy=self.strategy)
        box: _Box = started.launch(lambda there: _Box(work(_FabricWorker(there))))
        return box.content


class _Box:
    """What comes back from a process; Fabric looks into collections, and stumbles over some."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _FabricWorker:
    """A Fabric process as a :class:`Worker`."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.device: torch.device = process.device
        self.rank: int = process.global_rank
        self.world: int = process.world_size

    def total(self, tensors: Sequence[Tensor]) -> None:
        """Sum in one message: the tensors are laid end to end."""
        flat = torch.cat([t.flatten() for t in tensors])
        flat = self.process.all_reduce(flat, reduce_op="sum")
        sizes = [t.numel() for t in tensors]
        for tensor, summed in zip(tensors, flat.split(sizes), strict=True):
            tensor.copy_(summed.reshape(tensor.shape))
