"""PGD-20 at equal steps against a bare loop with frozen weights, and against other toolkits.

All are run in turn in each round, on the same network and examples; the figure is the ratio of their
times to the bare loop's of the same round, so that a slow moment of the machine hits all alike.
"Equal steps" is every example for 20 steps; the last column shows walnut with decided examples
leaving, which is how it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import peers
import record
from walnut import nets
from walnut.attacks import pgd
from walnut.evaluate import predict

STEPS, ROUNDS, SEED = 20, 5, 0


def bare(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The least a PGD can do: no weight gradients, no checks, no record."""
    loss = nn.CrossEntropyLoss(reduction="sum")
    z, size = x.clone(), 2.5 * eps / STEPS
    for p in model.parameters():
        p.requires_grad_(False)
    for _ in range(STEPS):
        z.requires_grad_()
        (grad,) = torch.autograd.grad(loss(model(z), y), z)
        with torch.no_grad():
            z = x + (z + size * grad.sign() - x).clamp(-eps, eps)
            z = z.clamp(0, 1)
    for p in model.parameters():
        p.requires_grad_(True)
    return z


def candidates(
    model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> dict[str, Callable[[], object]]:
    """Return what is timed."""
    size = 2.5 * eps / STEPS
    common = {"steps": STEPS, "random_start": False, "batch_size": len(x)}
    made: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(model, x, y, eps),
        "walnut": lambda: pgd(eps, early_stop=False, keep_best=False, **common)(model, x, y),
        "walnut, keeping the best": lambda: pgd(eps, early_stop=False, **common)(model, x, y),
        "walnut, rows leaving": lambda: pgd(eps, **common)(model, x, y),
    }
    torchattacks, foolbox = peers.torchattacks(), peers.foolbox()
    if torchattacks is not None:
        theirs = torchattacks.PGD(model, eps=eps, alpha=size, steps=STEPS, random_start=False)
        made["torchattacks"] = lambda: theirs(x, y)
    if foolbox is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS, random_start=False)
        made["foolbox"] = lambda: attack(wrapped, x, y, epsilons=[eps])
    return made


def measure(
    model: nn.Module, x: Tensor, eps: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, object]:
    """Time every candidate in turn."""
    y = predict(model, x).argmax(1)
    made = candidates(model, x, y, eps)
    times: dict[str, list[float]] = {name: [] for name in made}
    for i in range(ROUNDS + 1):
        for name, call in made.items():
            began = clock()
            call()
            if i:
                times[name].append(clock() - began)
    base = times["bare"]
    return {
        "examples": len(x),
        "eps": eps,
        "steps": STEPS,
        "bare_seconds": record.spread(base),
        "ratio_to_bare": {
            name: record.spread([mine / b for mine, b in zip(found, base, strict=True)])
            for name, found in times.items()
        },
    }


def main() -> None:
    torch.manual_seed(SEED)
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    weights = root / "models" / "resnet20_cifar10.safetensors"
    resnet = nets.build("resnet-20", shape=(3, 32, 32), classes=10).eval()
    if weights.exists():
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        resnet = nets.resolve("resnet-20", weights, mean=mean, std=std)
    small = nets.build("small-cnn", shape=(1, 28, 28), classes=10).eval()
    lenet = nets.build("lenet-300-100", shape=(1, 28, 28), classes=10).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wide = nets.build("small-cnn-wide", shape=(1, 28, 28), classes=10).eval()
    alone = measure(wide, torch.rand(256, 1, 28, 28), 0.1, time.process_time)
    torch.set_num_threads(threads)
    record.write(
        "loop_overhead",
        SEED,
        {
            "small-cnn-wide, processor time of one thread": alone,
            "resnet-20": measure(resnet, torch.rand(50, 3, 32, 32), 8 / 255),
            "small-cnn": measure(small, torch.rand(256, 1, 28, 28), 0.1),
            "lenet-300-100": measure(lenet, torch.rand(256, 1, 28, 28), 0.1),
        },
    )


if __name__ == "__main__":
    main()
