"""From the words on the command line to one checked, frozen configuration.

Defaults give way to the file of ``--config``, and the file to the flags. Every refusal names the
flag or the line of the file, and the nearest known name.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import BaseModel, ConfigDict, ValidationError

from walnut.core.errors import WalnutError

from .values import Count, Flag, KeyValues, OptionalPath, OptionalText, Whole, one

_PRESENTATION = {"config", "out", "as_json", "quiet"}


class Options(BaseModel):
    """What every verb takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    config: OptionalPath = None
    """A YAML file of these options; flags go on top of it."""
    seed: Whole = 0
    """Seed of every random draw; the same seed gives the same numbers."""
    out: Annotated[Path | None, one("FOLDER", "runs/VERB-ID")] = None
    """Where results are kept. The same command goes on from what is there."""
    as_json: Annotated[Flag, tyro.conf.arg(name="json")] = False
    """Write one JSON document to standard output and nothing else."""
    quiet: Flag = False
    """No progress and no notes."""


class NetworkOptions(BaseModel):
    """Which network."""

    model: Annotated[str, one("SPEC")] = ""
    """A registered name, a .walnut, .safetensors or .pt2 file, or package.module:factory."""
    weights: OptionalPath = None
    """The weights of a registered name or a factory (.safetensors)."""
    net: OptionalText = None
    """The registered name of the network in a bare .safetensors file."""
    net_arg: KeyValues = ()
    """An argument of the network, such as width=32."""


class DataOptions(BaseModel):
    """Which examples."""

    data: Annotated[str, one("SPEC")] = "digits"
    """digits, mnist, fashion_mnist, cifar10, folder:PATH or npz:PATH."""


class ExampleOptions(DataOptions):
    """Which examples, and how many."""

    examples: Count = 1000
    """How many test examples are used."""


def run_id(config: Options) -> str:
    """Return the sha256 of a configuration: equal for equal work, however it was asked for."""
    record = config.model_dump(mode="json", exclude=_PRESENTATION)
    text = json.dumps({"verb": type(config).__name__, **record}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recorded(config: Options) -> dict[str, Any]:
    """Return a configuration as it is written into ``config.json`` and the result."""
    return config.model_dump(mode="json", exclude=_PRESENTATION)


C = TypeVar("C", bound=Options)


def parse(cls: type[C], verb: str, words: list[str]) -> C:
    """Return the configuration that ``walnut VERB WORDS...`` asks for.

    Raises :class:`WalnutError` in one line where something is unknown or wrong, ``SystemExit``
    after ``--help``.
    """
    base = _from_file(cls, verb, _named_file(words))
    lists = {name: () for name in _appending(cls)}
    found = _from_flags(cls, verb, words, base.model_copy(update=lists))
    kept = {name: getattr(base, name) for name in lists if not getattr(found, name)}
    return found.model_copy(update=kept)


def _appending(cls: type[Options]) -> list[str]:
    """Return the options that may be repeated: on the command line they replace the file's."""
    marker = tyro.conf.UseAppendAction
    return [name for name, field in cls.model_fields.items() if marker in field.metadata]


def _named_file(words: list[str]) -> Path | None:
    """Return the file that ``--config`` names, before anything else is parsed."""
    for index, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
        if word == "--config" and index + 1 < len(words):
            return Path(words[index + 1])
    return None


def _from_file(cls: type[C], verb: str, path: Path | None) -> C:
    """Return the defaults, with what the file says on top."""
    if path is None:
        return cls()
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WalnutError(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WalnutError(f"--config {path} is not YAML: {_single_line(str(error))}") from None
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        if content.get("verb", verb) != verb:
            raise WalnutError(f"{path} is a configuration of walnut {content['verb']}, not {verb}")
        content = content["config"]  # a config.json that a run left behind
    if not isinstance(content, dict | None):
        raise WalnutError(f"{path} must hold lines of the form 'eps: 8/255'")
    values = {str(key).replace("-", "_"): value for key, value in (content or {}).items()}
    values |= {"as_json": values.pop("json")} if "json" in values else {}
    known = [name for name in cls.model_fields if name != "config"]
    for key in values:
        if key not in known:
            raise WalnutError(f"{path}: {_unknown(key, [*known, 'json'])}")
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise WalnutError(f"{path}: {_first(error, '{}')}") from None


def _from_flags(cls: type[C], verb: str, words: list[str], base: C) -> C:
    """Return the configuration with the flags on top of ``base``."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found, rest = tyro.cli(
                cls,
                prog=f"walnut {verb}",
                args=words,
                default=base,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except ValidationError as error:
        raise WalnutError(_first(error, "--{}")) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        if isinstance(stop.__context__, ValidationError):
            raise WalnutError(_first(stop.__context__, "--{}")) from None
        raise WalnutError(_unboxed(said.getvalue())) from None
    if rest:
        flags = [f"--{flag(name)}" for name in cls.model_fields]
        raise WalnutError(f"{_unknown(rest[0], flags)}; see walnut {verb} --help")
    return found


def flag(field: str) -> str:
    """Return a field's name as a flag spells it."""
    return "json" if field == "as_json" else field.replace("_", "-")


def _unknown(word: str, known: list[str]) -> str:
    """Say that a name is not known, and which one may have been meant."""
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.5)
    return f"{word} is not known" + (f"; did you mean {near[0]}?" if near else "")


def _first(error: ValidationError, form: str) -> str:
    """Return the first thing pydantic found wrong, in one line."""
    detail = error.errors()[0]
    name = form.format(flag(str(detail["loc"][0])) if form != "{}" else detail["loc"][0])
    text = _single_line(detail["msg"]).removeprefix("Value error, ")
    given = detail["input"]
    told = "" if repr(given) in text or detail["type"] == "too_short" else f" (given {given!r})"
    return f"{name}: {text[0].lower() + text[1:]}{told}"


def _single_line(text: str) -> str:
    return " ".join(text.split())


def _unboxed(text: str) -> str:
    """Return the first paragraph of one of tyro's boxes, in one line."""
    lines = [line.strip("│ ") for line in text.splitlines() if not re.match(r"\s*[╭╰]", line)]
    paragraph = [line for line in lines if line]
    end = next((i for i, line in enumerate(paragraph) if set(line) == {"─"}), len(paragraph))
    return _single_line(" ".join(paragraph[:end])) or "the command line could not be read"
