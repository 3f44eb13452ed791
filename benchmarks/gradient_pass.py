"""A forward and backward pass to the input, with the quicker layers of walnut.core.quick and without.

    python benchmarks/gradient_pass.py

In turn in each round, on one thread: the network held still as it is, and with its batch norms a
multiply-add and its first convolution differentiated by one product. The figure is the ratio of their
processor times in the same round; beside it, what each takes as a multiple of the multiply-adds of both
ways at the machine's rate of large matrix products, measured in the same round: the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import record
from walnut import nets
from walnut.core.frozen import frozen
from walnut.core.quick import quick
from walnut.evaluate.cost import cost

SEED, ROUNDS, BATCHES, SIDE = 0, 20, (10, 60), 768


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return networks with a thin first convolution, with batch norms, and with neither to gain."""
    torch.manual_seed(SEED)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(64 * 256, 10),
    )  # fmt: skip
    alone = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.Flatten())
    return {
        "a first convolution alone": (alone, (1, 28, 28)),
        "two convolutions, MNIST": (nets.build("small-cnn", shape=(1, 28, 28), classes=10), (1, 28, 28)),
        "LeNet-5, MNIST": (nets.build("lenet-5", shape=(1, 28, 28), classes=10), (1, 28, 28)),
        "two convolutions, CIFAR-10": (
            nets.build("small-cnn", shape=(3, 32, 32), classes=10), (3, 32, 32)
        ),
        "a ResNet's stem, 64 × 64": (stem, (3, 64, 64)),
        "ResNet-20": (nets.build("resnet-20", shape=(3, 32, 32), classes=10), (3, 32, 32)),
    }  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def passes(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the sum of the log-sum-exps."""
    z = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(z).logsumexp(1).sum(), z)
    return grad


def measure(model: nn.Module, shape: tuple[int, ...], batch: int) -> dict[str, Any]:
    """Time both in turn."""
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(SEED))
    square = torch.rand(SIDE, SIDE)
    adds = 2 * batch * cost(model, shape).multiply_adds
    own, quicker, limit = [], [], []
    with frozen(model):
        for i in range(ROUNDS + 3):
            times = [seconds(lambda: square @ square), seconds(lambda: passes(model, x))]
            with quick(model):
                times.append(seconds(lambda: passes(model, x)))
            if i >= 3:
                limit.append(times[0] * adds / SIDE**3)
                own.append(times[1])
                quicker.append(times[2])
    ratios = {
        "quick to own": (quicker, own), "own to limit": (own, limit), "quick to limit": (quicker, limit)
    }  # fmt: skip
    return {"batch": batch, "multiply-adds": adds} | {
        name: record.spread([a / b for a, b in zip(*pair, strict=True)])
        for name, pair in ratios.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    found = {
        name: [measure(model.eval(), shape, batch) for batch in BATCHES]
        for name, (model, shape) in networks().items()
    }
    record.write("gradient_pass", SEED, {"networks": found})


if __name__ == "__main__":
    main()
