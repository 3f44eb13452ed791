"""``walnut show FILE``: what is in a file, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from walnut.core.errors import WalnutError
from walnut.core.files import write_json

from .options import Options
from .run import Run
from .screen import plain
from .tables import size
from .values import one

FOLDER = False


class Config(Options):
    """Show what is in a .walnut, .safetensors or .pt file, tensor by tensor.

    Example: walnut show runs/compress/packed.walnut
    """

    file: Annotated[tyro.conf.Positional[str], one("FILE")] = ""
    """The file."""


def run(config: Config, run: Run) -> None:
    """Print a row per tensor and the totals."""
    if not config.file:
        raise WalnutError("walnut show needs a file: walnut show packed.walnut")
    path = Path(config.file)
    if not path.is_file():
        raise WalnutError(f"{path} is not a file")
    document = contents(path)
    if config.out:
        write_json(config.out / "result.json", plain(document))
    run.screen.document(document)
    run.screen.table(
        str(path),
        ["tensor", "shape", "type", "bytes", "bits", "zeros", "distinct", "kept as"],
        [_row(record) for record in document["tensors"]],
    )
    total = document["total"]
    run.screen.say(
        f"{size(total['weights'])} weights in {size(total['file_bytes'])} bytes: "
        f"{total['bits_per_weight']:.3f} bits per weight, {total['ratio']:.1f}× smaller than fp32"
    )


def _row(record: dict[str, Any]) -> list[str]:
    return [
        record["name"],
        "×".join(str(n) for n in record["shape"]) or "scalar",
        record["dtype"],
        size(record["bytes"]),
        f"{record['bits_per_weight']:.2f}",
        f"{100 * record['sparsity']:.1f} %",
        size(record["distinct"]),
        record["coder"],
    ]


def contents(path: Path) -> dict[str, Any]:
    """Return what a file holds: a record per tensor, the description it carries, the totals."""
    if path.suffix == ".walnut":
        description, records = _walnut(path)
    else:
        description, records = _state(path)
    weights = sum(record["weights"] for record in records)
    length = path.stat().st_size
    return {
        "kind": "show",
        "file": str(path),
        "description": description,
        "tensors": records,
        "total": {
            "tensors": len(records),
            "weights": weights,
            "tensor_bytes": sum(record["bytes"] for record in records),
            "file_bytes": length,
            "bits_per_weight": 8 * length / max(1, weights),
            "ratio": 4 * weights / length,
        },
    }


def _state(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Return the description and the records of a .safetensors or .pt file."""
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = (file.metadata() or {}).get("walnut")
            description = json.loads(said) if said else None
    except (SafetensorError, json.JSONDecodeError) as error:
        if path.suffix == ".safetensors":
            raise WalnutError(f"{path} is not a safetensors file: {error}") from None
        tensors, description = _torch_file(path), None
    return description, [_record(name, tensor) for name, tensor in tensors.items()]


def _torch_file(path: Path) -> dict[str, Any]:
    """Return the tensors of a file that torch wrote, if it holds nothing but tensors."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met
        reason = str(error).partition("\n")[0]
        raise WalnutError(
            f"{path} is not a .walnut, .safetensors or weights-only .pt file ({reason})"
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {"": content}
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}


def _record(name: str, tensor: Any) -> dict[str, Any]:
    count = tensor.numel()
    bits = 8.0 * tensor.element_size()
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "weights": count,
        "bytes": count * tensor.element_size(),
        "bits_per_weight": bits,
        "sparsity": float((tensor == 0).double().mean()) if count else 0.0,
        "distinct": len(tensor.unique()) if count else 0,
        "coder": "dense",
    }


def _walnut(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Return the description and the records of a .walnut file."""
    from walnut import codec

    description, _ = codec.peek(path)
    records = codec.inspect(path)
    for record in records:
        record["sparsity"] = 1 - record.pop("nonzeros") / max(1, record["weights"])
        record["bits_per_weight"] = record.pop("bits")
        record["coder"] = f"{record.pop('layout')}, {record['coder']}"
    return description, records
