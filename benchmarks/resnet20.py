"""The pretrained CIFAR-10 ResNet-20: its accuracy as published, and its packed file.

    walnut compress --model resnet-20 --weights .../resnet20_cifar10.safetensors --data cifar10 \\
        --net-arg mean=0.485,0.456,0.406 --net-arg std=0.229,0.224,0.225 --out runs/bench-resnet20
"""

from __future__ import annotations

import os
from pathlib import Path

import mnist
import record
from walnut import data, nets
from walnut.evaluate import accuracy
from walnut.recipes.compress import compress

SEED, OUT = 0, Path("runs/bench-resnet20")


def main() -> None:
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    dataset = data.load("cifar10")
    model = nets.resolve(
        "resnet-20",
        root / "models" / "resnet20_cifar10.safetensors",
        dataset=dataset,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )
    dense = accuracy(model, dataset.test.x, dataset.test.y)
    packed = compress(model, dataset, seed=SEED, out=OUT)
    figures = {
        "published_accuracy": 0.9173,
        "test_accuracy": dense.json(),
        "bytes": packed.path.stat().st_size,
        "fp32_bytes": packed.sizes.parameter_bytes,
        "ratio": packed.sizes.ratio,
        "errors": mnist.errors(OUT),
        "seconds_of_training": sum(row["seconds"] for row in packed.history),
    }
    record.write("resnet20", SEED, figures)


if __name__ == "__main__":
    main()
