"""What the MNIST records train on: distorted copies of the digits with a teacher's answers.

One teacher (a convolutional network with batch norm) learns from the training split alone; its
answers to every copy are computed once. Both are kept in the folder they are made in.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from walnut.core.draws import Draws
from walnut.core.objectives import cross_entropy
from walnut.data.dataset import Dataset
from walnut.evaluate.accuracy import accuracy, predict
from walnut.training import Batches, adamw, fit, one_cycle
from walnut.training.distort import distort

COPIES = 10
TEACHER_EPOCHS = 14


def teacher_network() -> nn.Module:
    """Return four convolutions of 3x3 and two dense layers: 210 k weights."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32), *block(32, 32), nn.MaxPool2d(2),
        *block(32, 64), *block(64, 64), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class bfloat:
    """An objective whose forward pass runs in bfloat16."""

    objective: Any

    def __call__(self, model: Any, x: Tensor, y: Any) -> Tensor:
        def run(batch: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            return logits.float()

        return self.objective(run, x, y)


def teacher(dataset: Dataset, folder: Path) -> nn.Module:
    """Return the teacher, trained now or read from ``folder``."""
    torch.manual_seed(0)
    net, path = teacher_network(), folder / "teacher.safetensors"
    if path.exists():
        net.load_state_dict(load_file(path))
        return net.eval()
    began = time.perf_counter()
    split = dataset.train
    batches = Batches(split.x, split.y, 256, 0, distort(12.0, 0.12, 0.15, 2.0, 0.8))
    fit(net, bfloat(cross_entropy()), batches, epochs=TEACHER_EPOCHS,
        optimizer=adamw(4e-3), schedule=one_cycle())  # fmt: skip
    save_file(net.state_dict(), path)
    share = accuracy(net, dataset.validation.x, dataset.validation.y)
    note = {"validation_error": 100 * (1 - share.value), "seconds": time.perf_counter() - began}
    (folder / "teacher.json").write_text(json.dumps(note))
    print("teacher", note, flush=True)
    return net.eval()


@dataclass(frozen=True, eq=False)
class Pool:
    """Copies of the training images (uint8) and target distributions; stands where Batches do."""

    pixels: Tensor
    targets: Tensor
    batch_size: int = 256
    seed: int = 0
    plain: float = 0.1

    @property
    def steps(self) -> int:
        """Return the steps of an epoch: as many as one copy has batches."""
        return len(self.pixels) // COPIES // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch: every image once, ``plain`` of them as they are."""
        rng, images = np.random.default_rng([self.seed, epoch]), len(self.pixels) // COPIES
        copies = 1 + rng.integers(COPIES - 1, size=images)
        copies[rng.random(images) < self.plain] = 0  # the first copy is the images themselves
        rows = torch.from_numpy(images * copies + np.arange(images))[rng.permutation(images)]
        for index in rows.split(self.batch_size)[start : self.steps]:
            yield self.pixels[index].float().div_(255.0), self.targets[index]

    def identity(self) -> dict[str, Any]:
        """Return what tells these batches from others."""
        return {"plain": self.plain, "batch_size": self.batch_size, "seed": self.seed}


def pool(dataset: Dataset, folder: Path) -> tuple[Tensor, Tensor]:
    """Return (copies of the images uint8, the teacher's logits), made now or read."""
    path = folder / "pool.safetensors"
    if path.exists():
        found = load_file(path)
        return found["pixels"], found["logits"]
    guide = copy.deepcopy(teacher(dataset, folder)).to(memory_format=torch.channels_last)
    change, pictures, answers = distort(9.0, 0.09, 0.1, 1.2, 0.6), [], []
    for number in range(COPIES):
        for rows in torch.arange(len(dataset.train)).split(1000):
            x = dataset.train.x[rows]
            if number:
                x = change(x, Draws.keyed(rows).fold(number))
            pictures.append((x * 255).round().to(torch.uint8))
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                answers.append(guide(pictures[-1].float() / 255).float())
        print("copy", number, flush=True)
    made = {"pixels": torch.cat(pictures), "logits": torch.cat(answers)}
    save_file(made, path)
    return made["pixels"], made["logits"]


def targets(logits: Tensor, labels: Tensor, *, temperature: float, hard: float) -> Tensor:
    """Return (1 − hard)·softmax(logits / T) + hard·(the labels), a row each copy."""
    soft = (logits / temperature).softmax(1)
    sure = nn.functional.one_hot(labels.repeat(COPIES), 10).float()
    return (1 - hard) * soft + hard * sure


def validation_error(net: nn.Module, dataset: Dataset) -> float:
    """Return the error on the validation split in percent."""
    found = predict(net, dataset.validation.x, 1000).argmax(1)
    return float(100 * (found != dataset.validation.y).double().mean())


def main() -> None:
    """Make the teacher and the pool."""
    from walnut import data

    torch.set_num_threads(1)
    folder = Path("runs/mnist-records")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = data.load("mnist")
    print(dataset, flush=True)
    pool(dataset, folder)


if __name__ == "__main__":
    main()
