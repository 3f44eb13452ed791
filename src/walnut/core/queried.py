"""A network as the loops ask it: passes counted, answers checked, the last one remembered."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import Tensor

from .errors import WalnutError, WalnutWarning
from .gradients import NO_PATH
from .types import Model

IN_PLACE = (
    "the network changes its input in place, so that what was asked is lost: give it a copy, "
    "lambda x: net(x.clone())"
)


class Queried:
    """A network that counts its passes and remembers its last answer, so that it need not be asked twice."""

    def __init__(self, model: Model) -> None:
        self.module = model
        self.classes = 0
        self.forward = 0
        self.backward = 0
        self._input: Tensor | None = None
        self._logits: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._input is x and self._logits is not None:
            return self._logits
        if len(x) == 0 and self.classes:  # not every kernel takes an empty batch
            return x.flatten(1).sum(1, keepdim=True).expand(0, self.classes)
        version = None if x.is_inference() else x._version
        try:
            logits = self.module(x)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise self._refused(x, error) from error
        if version is not None and x._version != version:
            raise WalnutError(IN_PLACE)
        if not self.classes:
            self._check(logits, x)
        logits = logits.to(torch.promote_types(x.dtype, torch.float32))  # votes are whole numbers
        self.forward += len(x)
        if logits.requires_grad:
            self.backward += len(x)
        self._input, self._logits = x, logits
        return logits

    def _refused(self, x: Tensor, error: Exception) -> WalnutError:
        """Say why the network did not answer."""
        told = str(error)
        if "leaf" in told and "in-place" in told:
            return WalnutError(IN_PLACE)
        if x.requires_grad and "requires grad" in told:  # it went through numpy
            return WalnutError(NO_PATH)
        line = told.strip().splitlines()[0] if told.strip() else repr(error)
        though = ", though it took others" if self.classes else ""
        remedy = f"; {told_types(x)}" if of_types(told) else ""
        return WalnutError(
            f"the network does not take a batch of shape {tuple(x.shape)}{though}: {line}{remedy}"
        )

    def _check(self, logits: Any, x: Tensor) -> None:
        if told := not_logits(logits, len(x)):
            raise WalnutError(
                f"the network must return logits (batch, classes); for {len(x)} inputs it gave {told}"
            )
        if logits.shape[1] < 2:
            raise WalnutError(
                "the network returns one number per input; walnut needs one per class"
            )
        if looks_like_probabilities(logits):
            warnings.warn(
                "the network returns probabilities (every row sums to 1): gradients through a softmax "
                "vanish, and robustness looks better than it is; return the logits before it",
                WalnutWarning,
                stacklevel=2,
            )
        self.classes = logits.shape[1]

    def logits_at(self, x: Tensor) -> Tensor:
        """Return the logits at ``x`` (b, classes), from memory when ``x`` was the last input."""
        seen = self._input
        if seen is None or seen.data_ptr() != x.data_ptr() or seen.shape != x.shape:
            with torch.no_grad():
                self(x)
        assert self._logits is not None
        return self._logits.detach()

    def forget(self) -> None:
        """Let go of the last graph."""
        self._input = self._logits = None


def of_types(told: str) -> bool:
    """Say whether an error is about two types of numbers that do not go together."""
    words = ("dtype", "scalar type", "Input type")
    kinds = re.findall(r"(?i)bfloat16|float\d*(?!ing)|double|half", told)
    return any(word in told for word in words) and len({kind.lower() for kind in kinds}) > 1


def told_types(x: Tensor) -> str:
    """Say how to make the types of examples and of a network one.

    >>> told_types(torch.zeros(1, dtype=torch.float64))
    'the examples are float64 and the network is not: give both one type, x.float() and net.float()'
    """
    mine = str(x.dtype).removeprefix("torch.")
    return f"the examples are {mine} and the network is not: give both one type, x.float() and net.float()"


def not_logits(answer: Any, examples: int) -> str:
    """Say what an answer is where it is no row of real numbers for each example; "" where it is."""
    if not isinstance(answer, Tensor):
        return type(answer).__name__
    if answer.is_complex() or answer.dtype is torch.bool or answer.layout is not torch.strided:
        return f"{str(answer.dtype).removeprefix('torch.')} numbers, {answer.layout}".replace(
            "torch.", ""
        )
    return "" if answer.ndim == 2 and len(answer) == examples else str(tuple(answer.shape))


def looks_like_probabilities(logits: Tensor) -> bool:
    """Say whether every row lies in [0, 1] and sums to 1."""
    rows = logits.detach().double()
    sums = rows.sum(1)
    inside = bool(((rows >= 0) & (rows <= 1)).all())
    return len(rows) > 0 and inside and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)


def label_error(y: Tensor, classes: int) -> WalnutError | None:
    """Say that labels do not fit the network, if that is what went wrong."""
    if classes and not y.is_floating_point() and y.ndim == 1:
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            return WalnutError(
                f"label {wrong} is out of range: the network has {classes} classes, 0 to {classes - 1}"
            )
    return None


def whole(y: Tensor) -> Tensor:
    """Return labels (n,) as int64, whatever whole numbers they came as.

    >>> whole(torch.tensor([3, 1], dtype=torch.uint8))
    tensor([3, 1])
    """
    if y.ndim == 1 and not (y.is_floating_point() or y.is_complex() or y.dtype is torch.bool):
        return y.long()
    column = y.ndim == 0 or y.numel() == len(y)
    advice = "y.long()" if y.ndim == 1 else "y.flatten()" if column else "y.argmax(1)"
    raise WalnutError(
        f"labels are whole numbers, one per example (n,), not {str(y.dtype).removeprefix('torch.')} of "
        f"shape {tuple(y.shape)}: use {advice}"
    )


def check_data(x: Tensor, y: Tensor, run: Any) -> None:
    """Refuse examples, labels or counts that no run (:class:`walnut.core.rows.Run`) can use."""
    if not x.is_floating_point():
        raise WalnutError(
            f"x holds {str(x.dtype).removeprefix('torch.')}, perhaps 0..255; walnut's attacks work on "
            "floats in [0, 1]: use x.float() / 255"
        )
    if len(x) != len(y):
        raise WalnutError(f"there are {len(x)} examples but {len(y)} labels")
    if len(x) == 0:
        raise WalnutError("there is nothing to attack: x holds no examples")
    if y.ndim == 1 and y.dtype not in (torch.int64, torch.int32):
        raise WalnutError(
            f"labels are {str(y.dtype).removeprefix('torch.')}; attacks take int64: use y.long()"
        )
    check_numbers(run.seed, run.batch_size)
    if min(run.steps, run.restarts) < 1:
        raise WalnutError("steps and restarts must be 1 or more")


def check_numbers(seed: Any, batch_size: Any) -> None:
    """Refuse a seed or a batch size that is no whole number, or none that can be used."""
    if not isinstance(seed, int):
        raise WalnutError(f"seed is a whole number, such as 0, not {seed!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise WalnutError(
            f"batch_size is how many examples are at work at once, 1 or more, not {batch_size!r}"
        )
