"""What happened to each example, on disk as it happens: a run can be killed and gone on with.

A ledger is a folder: ``identity.json`` says what was measured, and each cell is a safetensors file with
the outcome of one batch of examples in one stage. Cells are written whole or not at all, so a killed run
loses at most the batch it was at. A ledger of another network, radius or data set is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.files import write_bytes, write_json

Outcome = dict[str, Tensor]


def fingerprint(*parts: Any) -> str:
    """Return a short hash of tensors, names and numbers; of a network, of its state and buffers."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            kept = dict(part.named_buffers())  # a state leaves some out
            try:
                part = kept | part.state_dict()
            except (RuntimeError, AttributeError, NotImplementedError):
                part = kept
        if isinstance(part, Mapping):
            flat = [item for key in sorted(part, key=str) for item in (key, part[key])]
            found.update(fingerprint(*flat).encode())
        elif isinstance(part, Tensor):
            found.update(f"{tuple(part.shape)} {part.dtype}".encode())
            found.update(_raw(part))
        elif callable(part) and not isinstance(part, type):
            found.update(type(part).__qualname__.encode())  # its repr has an address
        else:
            found.update(repr(part).encode())
    return found.hexdigest()[:16]


def sketch(logits: Float[Tensor, " n k"]) -> Tensor:
    """Return answers in steps of a sixteenth of the largest: the same whatever the number of threads.

    What rounding does to a network is far below a step, and two networks differ by one somewhere.
    """
    logits = logits.detach().double()
    size = logits.abs().amax(1, keepdim=True).clamp_min(1e-300).log2().floor()
    return torch.cat([(16 * logits / size.exp2()).round(), size], 1).long()


def _raw(tensor: Tensor) -> bytes:
    kept = tensor.detach().cpu()
    if kept.is_quantized:
        kept = kept.int_repr()
    try:
        return kept.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    except (RuntimeError, TypeError, NotImplementedError):  # a tensor subclass without storage
        return repr(kept).encode()


class Ledger:
    """Outcomes by stage and batch, kept in ``folder`` (None: in memory only)."""

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        path = folder / "identity.json"
        wanted = json.loads(json.dumps(dict(identity)))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any(folder.glob("*.safetensors")):
                raise WalnutError(
                    f"{folder} holds outcomes but does not say of what; name an empty folder"
                ) from None
            write_json(path, wanted)
            return
        except (OSError, ValueError) as error:
            raise WalnutError(f"{path} cannot be read: {error}; name an empty folder") from None
        if found != wanted:
            other = _difference(found, wanted)
            raise WalnutError(
                f"{folder} holds the ledger of another run ({other}); its outcomes are not mixed "
                "with new ones: name another folder, or delete that one"
            )

    def cell(self, name: str, rows: Tensor, compute: Callable[[], Outcome]) -> Outcome:
        """Return the outcome of the examples ``rows`` in a stage, computed where it is not there yet."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.safetensors"
        try:
            found = load_file(path)
            if torch.equal(found.pop("rows"), rows.cpu()):
                return {key: value.to(rows.device) for key, value in found.items()}
        except (OSError, SafetensorError, KeyError):
            pass  # not there, or not whole: computed again
        outcome = compute()
        kept = {key: value.detach().cpu().contiguous() for key, value in outcome.items()}
        kept["rows"] = rows.cpu().contiguous()
        write_bytes(path, to_bytes(kept))
        return outcome


def _difference(found: Any, wanted: Mapping[str, Any]) -> str:
    """Name what is different, in the user's words."""
    if not isinstance(found, dict):
        return "its identity is not readable"
    names = [key for key in wanted if found.get(key) != wanted[key]]
    shown = [
        f"{key} {found.get(key)}, not {wanted[key]}" for key in names
        if isinstance(wanted[key], (int, float)) or key in ("norm", "effort")
    ]  # fmt: skip
    others = [f"another {key}" for key in names if not any(s.startswith(key + " ") for s in shown)]
    return ", ".join(shown + others) or "other settings"
