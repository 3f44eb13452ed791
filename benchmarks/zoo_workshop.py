"""Where the masked zoo's networks are made: data, a base network, and trainings that are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from walnut import nets
from walnut.core.objectives import cross_entropy
from walnut.core.types import Objective
from walnut.data import Dataset
from walnut.training import Batches, fit, optimizers

CACHE = Path(__file__).parent / "cache"
EPS = {"digits": 0.25, "mnist": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255}
PRETRAINED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mnist": ("mnist_conv_small_nat", "small-cnn", {"mean": [0.1307], "std": [0.3081]}),
    "cifar10": (
        "resnet20_cifar10", "resnet-20",
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ),
}  # fmt: skip


@dataclass
class Workshop:
    """One data set, its base network, and the trainings that zoo networks need, kept in ``folder``."""

    dataset: Dataset
    folder: Path = CACHE
    examples: int = 20_000
    epochs: int = 2
    made: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def eps(self) -> float:
        """The radius at which the base has little left."""
        return EPS[self.dataset.name]

    def base(self, seed: int = 0) -> nn.Module:
        """Return the undefended network: a published one where there is one, else trained here."""
        root = Path(os.environ.get("WALNUT_DATA") or "/nowhere") / "models"
        if seed == 0 and self.dataset.name in PRETRAINED:
            file, net, arguments = PRETRAINED[self.dataset.name]
            if "published" not in self.made:
                path = root / f"{file}.safetensors"
                self.made["published"] = nets.resolve(net, path, dataset=self.dataset, **arguments)
            return self.made["published"]
        return self.trained(f"plain-{seed}", self.small(), seed=seed)

    def small(self, channels: int | None = None) -> nn.Module:
        """Return an untrained small network, for inputs of so many channels."""
        shape = (channels or self.dataset.shape[0], *self.dataset.shape[1:])
        return nets.build("small-cnn", shape=shape, classes=len(self.dataset.classes))

    def trained(
        self,
        name: str,
        net: nn.Module,
        objective: Objective = cross_entropy(),
        *,
        seed: int = 0,
        targets: Callable[[Tensor], Tensor] | None = None,
        longer: int = 1,
    ) -> nn.Module:
        """Return ``net`` trained, or as it was trained before; it starts from weights of ``seed``.

        ``longer`` multiplies the epochs; ``targets`` makes labels from the examples.
        """
        if name in self.made:
            return self.made[name]
        epochs = longer * self.epochs
        path = self.folder / f"{self.dataset.name}-{name}-{self.examples}x{epochs}.safetensors"
        if path.exists():
            net.load_state_dict(load_file(path))
        else:
            self._train(net, objective, epochs, seed, targets)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
        self.made[name] = net.eval()
        return net

    def _train(
        self, net: nn.Module, objective: Objective, epochs: int, seed: int, targets: Callable | None
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in net.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        split = self.dataset.train
        x, y = split.x[: self.examples], split.y[: self.examples]
        batches = Batches(x, y if targets is None else targets(x), 100, seed=seed)
        fit(net, objective, batches, epochs=epochs, optimizer=optimizers.adam(2e-3), seed=seed)
