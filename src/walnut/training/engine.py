"""Where a training runs: in this process, or in several that share each batch.

The model is never wrapped: every process computes the gradients of its rows of a batch, and the
gradients are summed. So any objective works, also one that calls the network several times or not
through ``forward`` (a wrapper's hooks would miss those), and state dicts keep their keys.

And in which numbers: the weights that are trained, the optimiser and the objective stay in 32 bits;
:class:`autocast` lets the network itself multiply in 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

Result = TypeVar("Result")


@runtime_checkable
class Precision(Protocol):
    """In which numbers a network computes while it is trained."""

    def computing(self, model: nn.Module, device: torch.device) -> AbstractContextManager[None]:
        """Return the context in which the network's forward computes so."""
        ...


@dataclass(frozen=True)
class full:
    """Every operation in the dtype of its tensors."""

    @contextmanager
    def computing(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """Change nothing."""
        yield


@dataclass(frozen=True)
class autocast:
    """Matrix products and convolutions in 16 bits, sums and weights in 32.

    The weights that the optimiser sees, their gradients, and what the network returns are float32,
    so that an objective never computes in 16 bits: only what happens inside of the network's
    ``forward`` is cast (:class:`torch.autocast`). bfloat16 has float32's exponents and 8 bits of
    precision; gradients need no scaling. It pays where the processor multiplies it (AMX or
    AVX512-BF16, tensor cores): 2.5 times the speed for a ResNet-20 on a Sapphire Rapids; on others
    it is slower than float32.

    dtype: ``torch.bfloat16``. float16 is refused: it needs loss scaling.
    """

    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.dtype != torch.bfloat16:
            raise WalnutError(
                f"training casts to torch.bfloat16, not to {self.dtype}: float16 would need its "
                "losses scaled, and for float32 there is full()"
            )

    @contextmanager
    def computing(self, model: nn.Module, device: torch.device) -> Iterator[None]:
        """Let ``model.forward`` compute in 16 bits, and return 32."""
        plain, own = model.forward, "forward" in vars(model)
        model.forward = self.wrap(plain, device)
        try:
            yield
        finally:
            if own:
                model.forward = plain
            else:
                del model.forward

    def wrap(self, network: Callable[..., Any], device: torch.device | str = "cpu") -> Any:
        """Return a function that computes in 16 bits and returns 32: for a teacher, say.

        >>> import torch
        >>> autocast().wrap(torch.nn.Linear(2, 2))(torch.rand(3, 2)).dtype
        torch.float32
        """
        kind = torch.device(device).type

        def cast(*given: Any, **named: Any) -> Any:
            with torch.autocast(kind, self.dtype):
                out = network(*given, **named)
            return out.float() if isinstance(out, Tensor) and out.dtype == self.dtype else out

        return cast


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

    @property
    def precision(self) -> Precision:
        """Return in which numbers the network computes."""
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
    """This process, on one device.

    Args:
        where: "cpu", "cuda", ...
        precision: :class:`full`, or ``autocast(torch.bfloat16)``.
    """

    where: str = "cpu"
    rank: int = 0
    world: int = 1
    precision: Precision = full()

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
        precision: :class:`full`, or ``autocast(torch.bfloat16)``.
    """

    devices: int = 2
    accelerator: str = "cpu"
    strategy: str = "ddp_fork"
    precision: Precision = full()

    def launch(self, work: Callable[[Worker], Result]) -> Result:
        """Call ``work`` in every process and return what rank 0 returned."""
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise WalnutError(
                "training on several devices needs Lightning Fabric: pip install 'walnut-nn[dist]'"
            ) from error
        started = Fabric(accelerator=self.accelerator, devices=self.devices, strategy=self.strategy)
        box: _Box = started.launch(lambda there: _Box(work(_FabricWorker(there, self.precision))))
        return box.content


class _Box:
    """What comes back from a process; Fabric looks into collections, and stumbles over some."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _FabricWorker:
    """A Fabric process as a :class:`Worker`."""

    def __init__(self, process: Any, precision: Precision) -> None:
        self.process = process
        self.precision = precision
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
