"""Networks from elsewhere: a factory in somebody's module or file, an exported program."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .states import check_file

_LARGEST_TABLE = 1 << 26  # bytes of JSON in a .pt2 archive; one entry a tensor, so far below this


def is_factory(spec: str) -> bool:
    """Say whether ``spec`` reads as ``package.module:factory`` or ``file.py:factory``."""
    where, _, factory = spec.rpartition(":")
    is_module = all(part.isidentifier() for part in where.split("."))
    return factory.isidentifier() and (where.endswith(".py") or is_module)


def call_factory(spec: str, arguments: dict[str, Any]) -> nn.Module:
    """Import ``package.module:factory`` or ``file.py:factory`` and call it; this runs its code.

    Raises:
        WalnutError: nothing of that name, or it raised, or it returned no ``nn.Module``.
    """
    where, _, name = spec.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else _from_path(where)
    except WalnutError:
        raise
    except ImportError as error:
        raise WalnutError(f"{where} cannot be imported: {error}") from error
    except Exception as error:
        raise WalnutError(f"importing {where} raised {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise WalnutError(f"{where} has no callable {name!r}")
    return _called(spec, factory, arguments)


def _called(spec: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    try:
        model = factory(**arguments)
    except Exception as error:
        raise WalnutError(f"{spec} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise WalnutError(f"{spec} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _from_file(path: Path) -> ModuleType:
    path = check_file(path).resolve()
    found = importlib.util.spec_from_file_location(f"walnut_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise WalnutError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickles of the file look themselves up
    found.loader.exec_module(module)
    return module


def _from_path(name: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.append(here)  # an installed command does not have the current folder on its path
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


class Exported(nn.Module):
    """A ``torch.export`` program as a network: input size and batch as it was exported.

    ``batch`` is None where the batch dimension was exported as dynamic; where it was fixed, a batch
    of another size is cut into pieces (and the last one filled up). The program has one mode, the
    one it was exported in.
    """

    def __init__(self, program: torch.export.ExportedProgram, name: str) -> None:
        super().__init__()
        inputs = [tuple(node.meta["val"].shape) for node in _user_inputs(program)]
        if len(inputs) != 1 or len(inputs[0]) < 2:
            raise WalnutError(f"{name} takes {len(inputs)} inputs; a network here takes one batch")
        batch, *shape = inputs[0]
        if not all(isinstance(side, int) for side in shape):
            raise WalnutError(
                f"{name} was exported with a dynamic input size: fix all but the batch"
            )
        self.name, self.shape = name, tuple(shape)
        self.batch = batch if isinstance(batch, int) else None
        self.program = program.module()
        self.training = self.program.training = False

    def train(self, mode: bool = True) -> Exported:
        """Do nothing: the program stays in the mode it was exported in."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, *shape)."""
        if tuple(x.shape[1:]) != self.shape:
            raise WalnutError(
                f"{self.name} was exported for inputs of shape {self.shape}, not {tuple(x.shape[1:])}"
            )
        if self.batch is None or len(x) == self.batch:
            return self.program(x)
        missing = -len(x) % self.batch
        filled = torch.cat([x, x[-1:].expand(missing, *self.shape)]) if missing else x
        return torch.cat([self.program(part) for part in filled.split(self.batch)])[: len(x)]


def _user_inputs(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    names = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]


def load_exported(path: str | Path) -> nn.Module:
    """Load a ``.pt2`` program; it is code, so load only what you trust.

    Raises:
        WalnutError: not a .pt2 archive, one that holds pickles, or one with other than one input.
    """
    path = check_file(path)
    _refuse_pickles(path)
    try:
        program = torch.export.load(path)
        return Exported(program, path.name)
    except WalnutError:
        raise
    except Exception as error:
        raise WalnutError(f"{path} is not a torch.export program: {error!s:.200}") from error


def _refuse_pickles(path: Path) -> None:
    """Look through the archive's own tables for payloads that torch.export would unpickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.namelist()
            tables = [
                n for n in listed if n.endswith(("weights_config.json", "constants_config.json"))
            ]
            if any(archive.getinfo(name).file_size > _LARGEST_TABLE for name in tables):
                raise ValueError("its tables are absurdly large")
            texts = [json.loads(archive.read(name)) for name in tables]
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError, RuntimeError) as error:
        raise WalnutError(f"{path} is not a torch.export program: {error}") from error
    objects = any("custom_obj" in name or "pickle_obj" in name for name in listed)
    if not tables or objects or any(_says_pickle(text) for text in texts):
        raise WalnutError(
            f"{path} holds pickles, which could run code: export plain tensors with torch.export.save"
        )


def _says_pickle(table: Any) -> bool:
    if isinstance(table, dict):
        return bool(table.get("use_pickle")) or any(_says_pickle(v) for v in table.values())
    return isinstance(table, list) and any(_says_pickle(v) for v in table)
