"""``walnut VERB``: find the verb, run it, and turn every outcome into words and an exit code.

0: done. 1: something inside broke, or a check found something wrong. 2: what was asked for cannot
be done; the line says why. 3: a red flag speaks against a robustness figure. 130: stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from walnut.core.errors import WalnutError, WalnutWarning

VERBS = {
    "train": "train a network",
    "attack": "attack a network and count the fooled",
    "transfer": "attack every network with every other's examples",
    "compress": "prune, share and pack a network into a small file",
    "export": "write a network for a runtime: what it answers there, and how fast",
    "audit": "shrink, attack and report: one table, one page",
    "robust": "one robustness figure with its evidence (also: audit --robust)",
    "patch": "a patch that fools wherever it is stuck, and a file to print it from",
    "fooling": "pictures of nothing that a network is sure of",
    "techniques": "do examples carry over to trees, neighbours, SVMs and templates?",
    "substitute": "fool what gives its answers only, through a network trained on them",
    "show": "what is in a .walnut or safetensors file, tensor by tensor",
    "demo": "the whole bench on the digits that come along",
    "report": "write the page of a finished run again",
    "doctor": "what is installed, what is broken, and whether a network is fit to be attacked",
}
EXAMPLE = "walnut audit --model runs/lenet/model.safetensors --data mnist --eps 8/255"


def usage() -> str:
    """Return the text of ``walnut --help``."""
    lines = [
        "usage: walnut VERB [OPTIONS]",
        "",
        "How small can a network be made, and how easily is it fooled, before and after?",
        "",
        *(f"  {verb:<11}{meaning}" for verb, meaning in VERBS.items()),
        "",
        f"  {'--help':<11}this text, or a verb's: walnut audit --help",
        f"  {'--version':<11}the version",
        "",
        f"Example: {EXAMPLE}",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    out: list[Path] = []
    try:
        return _dispatch(words, out)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return _fail(words, f"stopped{_kept(out)}", 130)
    except BrokenPipeError:
        _close_stdout()
        return 1
    except WalnutError as error:
        return _fail(words, f"error: {' '.join(str(error).split())}", 2)
    except Exception as error:
        if os.environ.get("WALNUT_DEBUG") == "1":
            raise
        if isinstance(error, OSError):  # a full disk, a folder taken away: nothing of ours broke
            place = f"{error.filename}: " if error.filename else ""
            return _fail(words, f"error: {place}{error.strerror or error}{_kept(out)}", 2)
        log = _log(out[-1] if out else None, traceback.format_exc())
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return _fail(words, f"error: {said} (the traceback is in {log})", 1)


def _dispatch(words: list[str], out: list[Path]) -> int:
    """Run the verb that ``words`` name; ``out`` receives its folder as soon as it is known."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from walnut import __version__

        print(f"walnut {__version__}")
        return 0
    verb, options = asked(words)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(VERBS)}"
        raise WalnutError(f"walnut has no verb {verb!r}; {hint}")
    module = import_module(f"walnut.cli.{verb}")
    from .options import parse
    from .run import Run
    from .screen import Screen

    config = parse(module.Config, verb, options)
    screen = Screen(as_json=config.as_json, quiet=config.quiet)
    run = Run(verb, config, ["walnut", *words], screen, folder=module.FOLDER)
    out += [run.out] if run.out else []
    with _warnings_said(screen, run), _only_ours(screen):
        return _settled(module.run, config, run)


def asked(words: list[str]) -> tuple[str, list[str]]:
    """Return the verb that ``words`` mean and its options: ``audit --robust`` is ``robust``.

    >>> asked(["audit", "--model", "a.walnut", "--robust"])
    ('robust', ['--model', 'a.walnut'])
    """
    if words[0] == "audit" and "--robust" in words:
        return "robust", [word for word in words[1:] if word != "--robust"]
    return words[0], words[1:]


def _settled(verb: Callable[..., Any], config: Any, run: Any) -> int:
    """Run a verb and leave the terminal as it was."""
    try:
        return int(verb(config, run) or 0)
    finally:
        run.screen.settle()


@contextlib.contextmanager
def _only_ours(screen: Any) -> Iterator[None]:
    """Send what a user's own factory prints to standard error when a JSON document is due."""
    with contextlib.redirect_stdout(sys.stderr) if screen.as_json else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _warnings_said(screen: Any, run: Any) -> Iterator[None]:
    """Print walnut's warnings as notes and keep all others for the log."""

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if issubclass(category, WalnutWarning):
            screen.note(" ".join(str(message).split()))
        elif run.out and run.out.is_dir():
            _log(run.out, warnings.formatwarning(str(message), category, *rest[:2]))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def _kept(out: list[Path]) -> str:
    """Say where the work that is done lies, if it is kept."""
    told = "; what is done is kept in {}; the same command goes on from there"
    return told.format(out[-1]) if out else ""


def _fail(words: list[str], text: str, code: int) -> int:
    """Say in one line why it ended, also as JSON where JSON was asked for."""
    print(f"walnut: {text}", file=sys.stderr, flush=True)
    if "--json" in words:
        from .screen import Screen

        Screen(as_json=True).document({"error": text.removeprefix("error: "), "exit": code})
    return code


def _log(folder: Path | None, text: str) -> Path:
    """Append ``text`` to the run's log, or to a file of its own, and return where it is."""
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log.txt").open("a", encoding="utf-8") as file:
                file.write(text.rstrip() + "\n")
            return folder / "log.txt"
    handle, name = tempfile.mkstemp(prefix="walnut-log-", suffix=".txt")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)


def _close_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
