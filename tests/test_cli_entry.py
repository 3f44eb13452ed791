"""Outcomes: exit codes, one line for each refusal, JSON and nothing else, Ctrl-C, no traceback."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from walnut import __version__
from walnut.cli import demo, main, show
from walnut.cli.entry import VERBS, usage
from walnut.core.errors import WalnutError, WalnutWarning


def test_every_verb_is_a_file_with_help_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"Example: walnut {verb}" in said
        assert all(flag in said for flag in ("--json", "--seed", "--out", "--quiet", "--config"))
    folder = Path(show.__file__).parent
    assert all((folder / f"{verb}.py").is_file() for verb in VERBS)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_first_help_lists_the_verbs(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == usage() + "\n"
    assert all(verb in usage() for verb in VERBS)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"walnut {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shwo", "x"], "walnut has no verb 'shwo'; did you mean show?"),
        (["xyzzy"], "walnut has no verb 'xyzzy'; known are train, attack"),
        (["audit", "--epss", "1"], "--epss is not known; did you mean --eps?"),
        (["audit"], "walnut audit needs --model"),
        (["audit", "--model", "nowhere.walnut"], "nowhere.walnut"),
        (["audit", "--model", "lenet-5", "--data", "nothing"], "nothing"),
        (["attack", "--attack", "fgsm", "--restarts", "3"], "--restarts means nothing to fgsm"),
        (["attack", "--attack", "mi-fgsm", "--norm", "l2"], "--norm means nothing to mi-fgsm"),
        (["attack", "--attack", "fgms"], "fgms is not known; did you mean fgsm?"),
        (["attack", "--attack", "xyzzy"], "xyzzy is not known; choose from noise, fgsm"),
        (["attack", "--attack", "bpda"], "bpda needs a twin of the network: use walnut.attacks.bpda"),
        (["attack", "--attack", "jsma", "--norm", "l2"], "--norm means nothing to jsma"),
        (["attack", "--attack", "deepfool", "--eps", "1"], "seeks the smallest change"),
        (["attack", "--attack", "deepfool", "--restarts", "2"], "--restarts means nothing to deepf"),
        (["attack", "--attack", "nes", "--norm", "l0"], "norm must be one of linf, l2, l1"),
        (["attack", "--attack", "smallest", "--norm", "l0"], "smallest searches linf, l2, l1"),
        (["attack", "--attack", "fgsm", "--attack-arg", "queries=3"],
         "--attack-arg queries means nothing to fgsm; it takes"),
        (["attack", "--attack", "square", "--attack-arg", "queries=2.5"],
         "--attack-arg queries: 2.5 is not a whole number"),
        (["attack", "--attack", "square", "--attack-arg", "share=big"], "'big' is not a number"),
        (["attack", "--attack", "square", "--attack-arg", "early_stop=3"], "3 is not true or false"),
        (["attack", "--attack", "square", "--attack-arg", "objective=3"], "objective means nothing"),
        (["attack", "--attack", "pgd", "--attack-arg", "steps=3"], "a flag of its own, --steps"),
        (["attack", "--attack", "pgd", "--attack-arg", "eps=3"], "a flag of its own, --eps"),
        (["audit", "--robust"], "walnut robust needs --model"),
        (["audit", "--robust", "--model", "m", "--norm", "l0"], "--norm: "),
        (["audit", "--robust", "--effort", "more"], "--effort: "),
        (["audit", "--robust", "--eps", "0.1", "0.2"], "0.2 is not known"),
        (["audit", "--robust", "--eps", "-1"], "--eps: input should be greater than or equal"),
        (["audit", "--robust", "--density", "0.1"], "--density is not known"),
        (["robust", "--efort", "autoattack"], "did you mean --effort?"),
        (["transfer", "--model", "a.walnut"], "needs two networks or more"),
        (["train"], "needs one network: --net lenet-5"),
        (["show"], "needs a file"),
        (["show", "nowhere.safetensors"], "nowhere.safetensors is not a file"),
        (["report", "nowhere"], "nowhere holds no result.json"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_and_exit_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("walnut: error: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert list(elsewhere.iterdir()) == []  # nothing is left behind by a refusal


def test_a_refusal_is_json_where_json_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "nowhere.walnut", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"error": "nowhere.walnut is not a file", "exit": 2}


def fails(error: BaseException):
    def run(config, run) -> None:
        assert run.folder.is_dir()
        print("chatter")
        warnings.warn("this is odd", WalnutWarning, stacklevel=1)
        warnings.warn("this is somebody else's", UserWarning, stacklevel=1)
        raise error

    return run


def delivers(result: dict[str, Any]):
    def run(config, run) -> None:
        run.deliver(result)

    return run


def test_a_breakdown_leaves_a_log_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    monkeypatch.delenv("WALNUT_DEBUG", raising=False)
    monkeypatch.setattr(demo, "run", fails(ZeroDivisionError("of nought")))
    assert main(["demo", "--out", "here", "--json"]) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "walnut: note: this is odd" in printed.err
    assert "somebody else" not in printed.err
    assert (
        "walnut: error: ZeroDivisionError: of nought (the traceback is in here/log.txt)"
        in printed.err
    )
    assert json.loads(printed.out)["exit"] == 1  # the chatter went to standard error
    log = Path("here/log.txt").read_text()
    assert "Traceback" in log
    assert "somebody else's" in log


def test_a_breakdown_of_a_verb_without_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    def run(config, run) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(show, "run", run)
    assert main(["show"]) == 1
    said = capsys.readouterr().err
    assert "walnut: error: RuntimeError: two lines (the traceback is in" in said
    log = Path(said.rpartition(" in ")[2].strip().rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()
    monkeypatch.setenv("WALNUT_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["show"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (WalnutError("use\nthis"), 2, "walnut: error: use this\n"),
        (
            KeyboardInterrupt(),
            130,
            "walnut: stopped; what is done is kept in here; the same command",
        ),
        (
            OSError(28, "No space left on device", "here/a.safetensors"),
            2,
            "error: here/a.safetensors: No space left on device; what is done is kept in here; the same",
        ),
        (SystemExit(3), 3, ""),
    ],
)
def test_codes(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], elsewhere: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(demo, "run", fails(error))
    assert main(["demo", "--out", "here", "--quiet"]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "this is odd" not in printed  # --quiet


def test_a_folder_holds_one_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    monkeypatch.setattr(demo, "run", delivers({"kind": "demo", "notes": []}))
    assert main(["demo", "--out", "here"]) == 0
    assert main(["demo", "--out", "here"]) == 0  # the same command goes on
    capsys.readouterr()
    assert main(["demo", "--out", "here", "--seed", "1", "--eps", "0.3"]) == 2
    said = capsys.readouterr().err
    assert "here holds a run with another eps, seed; choose another --out" in said
    assert main(["train", "--net", "softmax", "--out", "here"]) == 2
    assert "here holds a run of walnut demo" in capsys.readouterr().err
    Path("here/config.json").write_text("{")
    assert main(["demo", "--out", "here"]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_result_says_how_to_make_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    result = {"kind": "demo", "notes": ["before"], "value": float("nan"), "path": Path("x")}
    monkeypatch.setattr(demo, "run", delivers(result))
    assert main(["demo", "--json", "--eps", "8/255"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (folder,) = Path("runs").iterdir()
    assert printed["out"] == str(folder)
    assert folder.name == f"demo-{printed['config_sha256'][:10]}"
    assert printed["command"] == "walnut demo --json --eps 8/255"
    assert printed["config"] == {"seed": 0, "eps": [8 / 255], "examples": 400}
    assert printed["value"] is None
    assert json.loads((folder / "result.json").read_text()) == {
        key: value for key, value in printed.items() if key != "out"
    }


def test_help_is_quick() -> None:
    def seconds() -> float:  # of computing, so that a busy machine does not count
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    def least(*words: str) -> float:
        times = []
        for _ in range(4):
            began = seconds()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            times.append(seconds() - began)
        return min(times)

    parser = least("-c", "import tyro")  # how fast this machine is; importing torch takes far more
    limit = max(0.4, 6 * parser)
    for words in (["--help"], ["audit", "--help"], ["audit", "--robust", "--help"]):
        assert least("-m", "walnut.cli", *words) < limit


SLOW = """
import signal, sys, time
from walnut.cli import demo, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
def run(config, run):
    run.folder
    run.screen.progress("waiting", 0, 10)
    time.sleep(60)
demo.run = run
sys.exit(main(["demo", "--out", "here"]))
"""


def test_ctrl_c_says_how_to_go_on(elsewhere: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting: 0/10\n"  # progress, in plain lines
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert (
        err
        == "walnut: stopped; what is done is kept in here; the same command goes on from there\n"
    )
    assert Path("here/config.json").is_file()


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; from walnut.cli import main; sys.exit(main(['--help'] ))"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, check=False, env=env
        )
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr
