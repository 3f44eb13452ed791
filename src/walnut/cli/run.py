"""A run: its folder, its identity, and the network and data it works on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walnut.core.errors import WalnutError
from walnut.core.files import write_json

from .options import Options, recorded, run_id
from .screen import Screen, plain


class Run:
    """One call of a verb: where its results go and what they carry.

    ``out`` is ``--out``, or ``runs/VERB-ID`` with the first ten digits of the configuration's
    sha256, or None for a verb that keeps nothing unless it is asked to.
    """

    def __init__(
        self, verb: str, config: Options, command: list[str], screen: Screen, *, folder: bool
    ) -> None:
        self.verb, self.config, self.screen = verb, config, screen
        self.command = shlex.join(command)
        self.id = run_id(config)
        default = Path("runs") / f"{verb}-{self.id[:10]}" if folder else None
        self.out: Path | None = config.out or default
        self._opened = False

    @property
    def folder(self) -> Path:
        """The folder of a verb that always keeps its results, made when it is first needed."""
        assert self.out is not None
        if not self._opened:
            self._open(self.out)
            self._opened = True
        return self.out

    def _open(self, out: Path) -> None:
        """Make the folder and write ``config.json``; refuse a folder that holds another run."""
        record = {"verb": self.verb, "command": self.command, "config": recorded(self.config)}
        path = out / "config.json"
        try:
            if path.exists():
                self._same(json.loads(path.read_text(encoding="utf-8")))
            else:
                write_json(path, {**record, "config_sha256": self.id})
        except OSError as error:
            raise WalnutError(f"--out {self.out}: {error.strerror or error}") from None
        except json.JSONDecodeError:
            raise WalnutError(f"{path} is damaged; remove it or choose another --out") from None

    def _same(self, before: Any) -> None:
        """Refuse to mix two runs in one folder, naming what differs."""
        if not isinstance(before, dict) or before.get("config_sha256") == self.id:
            return
        old, new = before.get("config") or {}, recorded(self.config)
        if before.get("verb") != self.verb:
            what = f"of walnut {before.get('verb')}"
        else:
            changed = sorted(k for k in {*old, *new} if old.get(k) != plain(new.get(k)))
            what = f"with another {', '.join(changed)}" if changed else "of another version"
        raise WalnutError(
            f"{self.out} holds a run {what}; choose another --out, or remove that folder"
        )

    def identity(self) -> dict[str, Any]:
        """Return what every result says about the call that made it."""
        return {
            "command": self.command,
            "config": recorded(self.config),
            "config_sha256": self.id,
            "notes": list(self.screen.notes),
        }

    def finish(self, result: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
        """Put the call's identity into a result, write it into the folder, and render its page."""
        folder = folder or self.folder
        own = self.identity()
        own["notes"] = list(dict.fromkeys([*result.get("notes", []), *own["notes"]]))
        own["config"] = {**result.get("config", {}), **own["config"]}
        whole: dict[str, Any] = plain({**result, **own})
        write_json(folder / "result.json", whole)
        if (folder / "report.html").exists():
            render(folder, whole)
        return whole

    def deliver(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Finish a result and print it as JSON, where JSON is asked for."""
        whole = self.finish(result)
        self.screen.document({**whole, "out": str(self.folder)})
        return whole

    def written(self) -> dict[str, Any]:
        """Return the result that a recipe wrote into the folder."""
        return dict(json.loads((self.folder / "result.json").read_text(encoding="utf-8")))

    def dataset(self) -> Any:
        """Return the data that ``--data`` names."""
        from walnut import data

        config: Any = self.config
        return data.load(config.data)

    def subject(self) -> tuple[Any, Any]:
        """Return the network that ``--model`` names, ready to be attacked, and its data."""
        config: Any = self.config
        if not config.model:
            raise WalnutError(
                f"walnut {self.verb} needs --model: a .walnut or .safetensors file, a registered "
                "name with --weights, or package.module:factory"
            )
        dataset = self.dataset()
        return resolve(config.model, config.weights, config.net, config.net_arg, dataset), dataset


def network_name(spec: str) -> str:
    """Return a short name for what ``--model`` says.

    >>> network_name("runs/b/model.safetensors"), network_name("zoo/a.walnut"), network_name("m:net")
    ('b', 'a', 'net')
    """
    path = Path(spec.rpartition(":")[2])
    return path.parent.name if path.stem == "model" and path.parent.name else path.stem


def resolve(
    spec: str, weights: Path | None, net: str | None, net_arg: tuple[str, ...], dataset: Any
) -> Any:
    """Return the network that a ``--model`` value and its companions mean."""
    from walnut import nets

    from .values import arguments

    return nets.resolve(spec, weights, net=net, dataset=dataset, **arguments(net_arg))


def render(folder: Path, result: Mapping[str, Any], out: Path | None = None) -> Path:
    """Write the page of a run's result, into ``out`` or the run's folder, and return its path."""
    import numpy as np

    from walnut import report

    pictures = None
    if (folder / "pictures.npz").exists():
        with np.load(folder / "pictures.npz", allow_pickle=False) as arrays:
            pictures = {name: arrays[name] for name in arrays.files}
    out = folder if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    return report.render(dict(result), pictures, out / "report.html")
