"""How options are read: fractions, files, flags on top of files, and what is said about typos."""

from __future__ import annotations

from pathlib import Path

import pytest

from walnut.cli import attack, audit, compress, train, transfer
from walnut.cli.options import parse, run_id
from walnut.cli.values import arguments, number, patterns, shown
from walnut.core.errors import WalnutError


def asked(words: str, module=audit):
    verb = module.__name__.rpartition(".")[2]
    return parse(module.Config, verb, words.split())


@pytest.mark.parametrize(
    ("words", "radii"),
    [
        ("--eps 0.1", (0.1,)),
        ("--eps 8/255", (8 / 255,)),
        ("--eps 1e-2 2/255 0", (0.01, 2 / 255, 0.0)),
        ("--eps=0.3", (0.3,)),
        ("", (0.05, 0.1, 0.2)),
    ],
)
def test_radii_are_numbers_and_fractions(words: str, radii: tuple[float, ...]) -> None:
    assert asked(words).eps == radii


@pytest.mark.parametrize(
    "text", ["eps: 8/255", "eps: [8/255]", "eps:\n- 8/255\n", "eps: 0.03137254901960784"]
)
def test_radii_in_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert asked(f"--config {file}").eps == (8 / 255,)


def test_flags_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: a.walnut\nseed: 3\nbatch-size: 32\ndensity: {'*': 0.1, 'conv1.*': 2/3}\n"
    )
    config = asked(f"--config {file} --seed 5")
    assert (config.model, config.seed, config.batch_size, config.examples) == (
        "a.walnut",
        5,
        32,
        1000,
    )
    assert patterns(config.density) == {"*": 0.1, "conv1.*": 2 / 3}
    replaced = asked(f"--config {file} --density 0.2 --density fc*=0.05")
    assert patterns(replaced.density) == {"*": 0.2, "fc*": 0.05}
    assert asked(f"--config={file}") == asked(f"--config {file}").model_copy(
        update={"config": file}
    )


def test_a_run_leaves_a_file_that_asks_for_it_again(tmp_path: Path) -> None:
    import json

    from walnut.cli.options import recorded

    config = asked("--model a.walnut --eps 8/255 --density 0.1 --density conv1.*=0.66 --seed 2")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"verb": "audit", "config": recorded(config)}))
    assert run_id(asked(f"--config {file}")) == run_id(config)
    with pytest.raises(WalnutError, match="is a configuration of walnut audit, not train"):
        asked(f"--config {file}", train)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epss 0.1", "--epss is not known; did you mean --eps?"),
        ("--desnity 0.1", "did you mean --density?"),
        ("--eps big", "--eps: 'big' is not a number; write 0.1, 8/255 or 1e-2"),
        ("--eps 8/0", "--eps: '8/0' is not a number"),
        ("--eps -0.1", "--eps: input should be greater than or equal to 0"),
        ("--eps inf", "--eps: input should be a finite number"),
        ("--seed 1.5", "--seed: .*integer"),
        ("--seed -1", "--seed: .*greater than or equal to 0"),
        ("--examples 0", "--examples: .*greater than or equal to 1"),
        ("--density conv=x", "--density: 'x' is not a number"),
        ("--net-arg width", "--net-arg: 'width' is not of the form key=value"),
        ("--seed", "Missing value for argument '--seed'"),
        ("stray", "stray is not known"),
        ("--config nowhere.yaml", "nowhere.yaml: No such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: str, said: str) -> None:
    with pytest.raises(WalnutError, match=said) as error:
        asked(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epz: 0.1", "epz is not known; did you mean eps?"),
        ("eps: big", "eps: 'big' is not a number"),
        ("- 1\n- 2", "must hold lines of the form"),
        ("a: [", "is not YAML"),
        ("seed: {x: 1}", "seed: .*integer"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(WalnutError, match=said) as error:
        asked(f"--config {file}")
    assert "run.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_work_has_the_same_identity() -> None:
    plain = run_id(asked("--model a --eps 8/255"))
    assert run_id(asked("--eps=8/255 --model a --json --quiet --out there")) == plain
    assert run_id(asked("--model a --eps 9/255")) != plain
    assert run_id(asked("--model a --eps 8/255 --seed 1")) != plain
    assert run_id(asked("--model a", compress)) != run_id(asked("--model a"))
    assert len(plain) == 64


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        asked("").seed = 1


def test_flags_become_values() -> None:
    assert arguments(asked("--net-arg width=32 --net-arg bias=false --net-arg std=[0.5]").net_arg) == {
        "width": 32, "bias": False, "std": [0.5],
    }  # fmt: skip
    assert asked("--attack di-fgsm --norm l2 --steps 7", attack).norm == "l2"
    assert number("1/3") == 1 / 3
    assert [shown(v) for v in (8 / 255, 0.1, 1.0, 3, 2 / 3)] == ["8/255", "0.1", "1", "3", "2/3"]


def test_networks_of_a_transfer_have_names() -> None:
    named = transfer.named(["A=x.walnut", "y/one.walnut", "z/one.walnut", "pkg.mod:net", "B=m:f"])
    assert list(named) == ["A", "one", "one-2", "net", "B"]
    assert named["B"] == "m:f"
    with pytest.raises(WalnutError, match="two networks are named A"):
        transfer.named(["A=x.walnut", "A=y.walnut"])
    with pytest.raises(WalnutError, match="two networks or more"):
        transfer.named(["A=x.walnut"])
    both = asked("--model A=a.walnut --model B=b.walnut --models c.walnut d.walnut", transfer)
    assert (both.model, both.models) == (("A=a.walnut", "B=b.walnut"), ("c.walnut", "d.walnut"))
