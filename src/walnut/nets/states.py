"""State dicts on disk: what a file holds, whether it fits a network, and putting it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes

_METADATA_KEY = "walnut"
_NAMED = 5  # how many names an error message lists
_FLOATS = {"F16", "BF16", "F32", "F64"}


@dataclass(frozen=True)
class StateFile:
    """A file of weights: shapes and kinds at once, tensors when asked for.

    ``kinds`` are ``"float"`` or the name of another dtype; ``description`` is None where the file
    has none.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]
    description: dict[str, Any] | None
    loaded: dict[str, Tensor] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors, in memory of their own."""
        if self.loaded is not None:
            return self.loaded
        with _opened(self.path) as file:
            return {name: file.get_tensor(name).clone() for name in self.shapes}


def check_file(path: str | Path) -> Path:
    """Return the path of a readable file, or say what is wrong with it."""
    path = Path(path)
    if path.is_dir():
        raise WalnutError(f"{path} is a folder, not a file of weights")
    if not path.is_file():
        raise WalnutError(f"there is no file {path}")
    return path


def open_state(path: str | Path) -> StateFile:
    """Open a file of weights: .safetensors, or .pt / .pth that loads with weights_only=True.

    Raises:
        WalnutError: no such file, a damaged file, or a pickle that could run code.
    """
    path = check_file(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _open_pickle(path)
    raise WalnutError(f"weights come as .safetensors, .pt or .pth, not as {path.name}")


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), "pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise WalnutError(f"{path} is not a sound safetensors file: {error}") from error


def _open_safetensors(path: Path) -> StateFile:
    shapes, kinds = {}, {}
    with _opened(path) as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            part = file.get_slice(name)
            shapes[name] = tuple(part.get_shape())
            kinds[name] = "float" if part.get_dtype() in _FLOATS else part.get_dtype()
    description = None
    if _METADATA_KEY in metadata:
        description = _parsed(metadata[_METADATA_KEY], path)
    return StateFile(path, shapes, kinds, description)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return check_description(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise WalnutError(f"{path} carries a description that cannot be read") from error


def check_description(description: Any, path: Path) -> dict[str, Any]:
    """Return ``{"net": name, "arguments": {...}, "edits": [...]}`` from a file's, or raise."""
    good = isinstance(description, dict) and isinstance(description.get("net"), str)
    arguments = description.get("arguments", {}) if good else None
    edits = description.get("edits", []) if good else None
    if not isinstance(arguments, dict) or not isinstance(edits, list):
        raise WalnutError(f"{path} carries a description that names no network")
    return {"net": description["net"], "arguments": arguments, "edits": edits}


def _open_pickle(path: Path) -> StateFile:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WalnutError(
            f"{path} does not load with weights_only=True, so opening it could run code that "
            "somebody put into it: get the weights as safetensors"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    good = isinstance(found, Mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) and v.layout == torch.strided
        for k, v in found.items()
    )
    if not good:
        raise WalnutError(f"{path} holds no state dict (names and tensors)")
    if found and all(k.startswith("module.") for k in found):  # written by DataParallel
        found = {k.removeprefix("module."): v for k, v in found.items()}
    return held(path, {k: v.detach().clone() for k, v in found.items()})


def held(path: Path, tensors: dict[str, Tensor]) -> StateFile:
    """Return tensors that are in memory already as the contents of ``path``."""
    shapes = {k: tuple(v.shape) for k, v in tensors.items()}
    return StateFile(path, shapes, {k: _kind(v) for k, v in tensors.items()}, None, tensors)


_INTEGER_KINDS = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    return _INTEGER_KINDS.get(tensor.dtype, str(tensor.dtype))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:80] for name in names[:_NAMED]) + more


def check_fits(model: nn.Module, file: StateFile) -> None:
    """Hold the names, shapes and kinds of a file against a network's, before anything is read.

    The network may live on the meta device.

    Raises:
        WalnutError: naming what is missing, unexpected or of another shape (at most 5 each).
    """
    wanted = model.state_dict()
    optional = {name for name in wanted if name.endswith(".num_batches_tracked")}
    missing = [name for name in wanted if name not in file.shapes and name not in optional]
    unexpected = [name for name in file.shapes if name not in wanted]
    both = [name for name in wanted if name in file.shapes]
    wrong = [
        f"{name} is {file.shapes[name]}, not {tuple(wanted[name].shape)}"
        for name in both
        if file.shapes[name] != tuple(wanted[name].shape)
    ]
    kinds = [f"{n} is {file.kinds[n]}" for n in both if file.kinds[n] != _kind(wanted[n])]
    problems = {"missing": missing, "unexpected": unexpected, "shapes": wrong, "kinds": kinds}
    said = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if said:
        net = getattr(model, "description", {}).get("net", type(model).__name__)
        raise WalnutError(f"the weights in {file.path} do not fit {net}; " + "; ".join(said))


def fill(model: nn.Module, file: StateFile) -> nn.Module:
    """Put a file's weights into a network that may live on the meta device; return it in eval mode.

    Floating-point weights of another width are converted to the network's.
    """
    check_fits(model, file)
    tensors = file.tensors()
    state = {}
    for name, target in model.state_dict().items():
        value = tensors.get(name, torch.zeros(target.shape, dtype=target.dtype, device="cpu"))
        state[name] = value.to(target.dtype).contiguous()
    model.load_state_dict(state, assign=True)
    return model.eval()


def save(model: nn.Module, path: str | Path) -> None:
    """Write a network as safetensors, its description in the metadata (key ``"walnut"``).

    ``nets.load(path)`` builds it again where it is a reference network; any other network's weights
    go back in with ``resolve("package.module:factory", weights=path)``.

    Raises:
        WalnutError: the network's weights are represented (masks, codebooks): bake it first.
    """
    state = model.state_dict()
    if any("parametrizations." in name for name in state):
        raise WalnutError(
            "this network's weights are represented (a mask, a codebook): walnut.bake it first, "
            "or walnut.pack it into a .walnut file"
        )
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    description = getattr(model, "description", None)
    metadata = {_METADATA_KEY: json.dumps(description)} if description else None
    write_bytes(Path(path), to_bytes(tensors, metadata))
