"""A training on disk: one safetensors file that is replaced whole, so that a kill at any moment
leaves the last state or the one before, and the run goes on from it as if it had not stopped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes

_KEY = "walnut-training"


@dataclass
class Position:
    """How far a run has come, as JSON data.

    ``step`` counts within ``epoch``; ``loss`` is the sum over the ``seen`` examples of that epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best: float | None = None


def checksum(state: Mapping[str, Tensor]) -> int:
    """Return a checksum of a state dict's names and values."""
    total = 0
    for name, value in state.items():
        total = zlib.crc32(name.encode(), total)
        flat = value.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), total)
    return total


def save(
    path: Path,
    identity: Mapping[str, Any],
    position: Position,
    states: Mapping[str, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a run: its states by part (``model``, ``best``, ...), its optimiser, its random state."""
    tensors = {
        f"{part}/{name}": value for part, state in states.items() for name, value in state.items()
    }
    numbers: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for key, value in slots.items():
            kept = tensors if isinstance(value, Tensor) else numbers
            kept[f"optimizer/{index}/{key}"] = value
    tensors["random/torch"] = torch.get_rng_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    header = {"identity": identity, "position": asdict(position), "optimizer": numbers}
    write_bytes(path, to_bytes(own, {_KEY: json.dumps(header)}))


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`read` found."""

    position: Position
    states: dict[str, dict[str, Tensor]]
    optimizer: dict[int, dict[str, Any]]
    random: dict[str, Tensor]

    def restore(
        self, parts: Mapping[str, nn.Module | None], optimizer: torch.optim.Optimizer
    ) -> None:
        """Put states, optimiser and random state back."""
        groups = optimizer.state_dict()["param_groups"]
        try:
            for name, module in parts.items():
                if module is not None:
                    module.load_state_dict(self.states.get(name, {}))
            optimizer.load_state_dict({"state": self.optimizer, "param_groups": groups})
            torch.set_rng_state(self.random["torch"])
            if "cuda" in self.random and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.random["cuda"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise WalnutError(
                f"the checkpoint does not hold this network's training ({error!s:.120}): remove it "
                "to start anew"
            ) from error


def read(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Return the run kept at ``path``, or None where there is none.

    Raises:
        WalnutError: the file is damaged, or keeps a run with another ``identity``.
    """
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        position = Position(**header["position"])
        kept, numbers = header["identity"], header["optimizer"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WalnutError(f"{path} is not a sound checkpoint: remove it to start anew") from error
    _check_identity(path, kept, json.loads(json.dumps(identity)))
    states: dict[str, dict[str, Tensor]] = {}
    slots: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        part, _, rest = name.partition("/")
        if part == "optimizer":
            index, _, key = rest.partition("/")
            slots.setdefault(int(index), {})[key] = value
        else:
            states.setdefault(part, {})[rest] = value
    return Checkpoint(position, states, slots, states.pop("random", {}))


def _check_identity(path: Path, kept: Any, wanted: dict[str, Any]) -> None:
    if kept == wanted:
        return
    before = kept if isinstance(kept, dict) else {}
    other = [key for key in wanted if before.get(key) != wanted[key]]
    said = "; ".join(
        f"{key}: {str(before.get(key))[:80]} there, {str(wanted[key])[:80]} now"
        for key in other[:3]
    )
    raise WalnutError(
        f"{path} is the checkpoint of another run ({said}): remove it to start anew, or write "
        "somewhere else"
    )
