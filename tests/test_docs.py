"""What the documentation shows is what happens."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

import walnut
from walnut import attacks
from walnut.cli import main
from walnut.cli.attacks import ATTACKS
from walnut.cli.entry import VERBS
from walnut.cli.helptext import regenerated

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "src").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def alike(said: str, shown: str) -> bool:
    """Say whether two texts agree: in words exactly, in numbers to 5 % or 3 units.

    Another processor rounds otherwise, and a training carries that on.
    """
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(shown), strict=True)
    return all(abs(float(a) - float(b)) <= max(3.0, 0.05 * float(b)) for a, b in pairs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_runs_and_prints_what_it_shows(page: Path, elsewhere: Path) -> None:
    space: dict[str, object] = {"__name__": "__page__"}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block["code"], page.name, "exec"), space)
        if block["output"] is not None:
            assert alike(said.getvalue(), block["output"]), said.getvalue()


SHELL = re.compile(r"```sh\n(?P<lines>.*?)```", re.DOTALL)


def test_commands_on_the_page_of_attacks_run(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "which-attack.md").read_text(encoding="utf-8")
    lines = [line for block in SHELL.finditer(page) for line in block["lines"].splitlines()]
    assert len(lines) >= 12
    assert main(["train", "--net", "lenet-300-100", "--out", "runs/net", "--quiet"]) == 0
    for line in lines:
        walnut_, *words = shlex.split(line)
        assert walnut_ == "walnut", line
        if "--examples" in words:  # the page's numbers are for reading
            words[words.index("--examples") + 1] = "6"
        if "--epochs" in words:
            words[words.index("--epochs") + 1] = "1"
        # 3 is a red flag: a figure all the same
        assert main([*words, "--quiet"]) in ((0, 3) if "--robust" in words else (0,)), line
        assert "page " in capsys.readouterr().out or words[0] == "train", line


def test_every_attack_has_its_row() -> None:
    """A row names its attack's id, its reference, and when it is the one to use."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("\n## Attacks\n") : text.index("\n## Figures\n")]
    found = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"A\d+", cells[0]):
            number, what, name, cross, reference, when = cells
            assert min(len(what), len(reference), len(when)) > 3, line
            found[name.strip("`")] = (number, cross)
    public = {name for name in attacks.__all__ if name[0].islower()}
    assert public <= set(found), f"README lacks {sorted(public - set(found))}"
    assert {number for number, _ in found.values()} == {f"A{i}" for i in range(1, 16)} - {"A11"}
    assert "| A11 |" in text
    crossed = {name for name, (_, cross) in found.items() if cross}
    assert crossed == {name.replace("-", "_") for name in ATTACKS}


def test_every_attack_is_on_the_page_that_helps_to_choose() -> None:
    page = (ROOT / "docs" / "which-attack.md").read_text(encoding="utf-8").replace("_", "-")
    words = set(re.findall(r"[\w-]+", page))
    public = {name.replace("_", "-") for name in attacks.__all__ if name[0].islower()}
    assert public - words <= {
        "fgsm",
        "bim",
        "apgd-t",
        "spsa",
    }  # they answer no question of their own


def test_agreement_is_of_words_and_nearly_of_numbers() -> None:
    assert alike("clean 98.6 % at 13646\n", "clean 97.0 %  at 13600")
    assert not alike("clean 98.6", "noise 98.6")
    assert not alike("clean 98.6", "clean 80.0")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, elsewhere: Path) -> None:
    failed = doctest.testmod(importlib.import_module(name)).failed
    assert failed == 0


def test_every_module_with_examples_was_found() -> None:
    assert len(MODULES) >= 15
    assert "walnut.attacks.gradient" in MODULES


def test_help_texts_are_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert regenerated(page) == page, "run: make docs"
    assert all(f"<!-- help: {verb} -->" in page for verb in VERBS)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"] | project["dependency-groups"]
    named = [*project["project"]["dependencies"], *itertools.chain(*optional.values())]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    for requirement in named:
        name = re.split(r"[<>=\[;]", requirement)[0].strip().lower()
        assert name in page, f"docs/dependencies.md does not say what {name} is for"
        assert f"\n{name}==" in pins, f"constraints.txt does not pin {name}"


def test_the_version_stands_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", walnut.__version__)
    assert (
        walnut.__version__
        not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool")[0]
    )


ROW = re.compile(
    r"^\|(?P<cells>.*)\| \[[^\]]+\]\((?P<file>benchmarks/results/\w+\.json)\) \|$", re.M
)


def numbers(value: object) -> list[float]:
    """Return all numbers in a result file."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return [float(value)] if plain else []  # type: ignore[arg-type]


def test_figures_in_the_readme_are_those_of_the_result_files() -> None:
    rows = list(ROW.finditer((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(rows) >= 5
    for row in rows:
        kept = numbers(json.loads((ROOT / row["file"]).read_text(encoding="utf-8")))
        figures = row["cells"].split("|")[1].replace(",", "").replace("1e-", "")
        for shown in re.findall(r"\d+(?:\.\d+)?", figures):
            places = len(shown.partition(".")[2])
            forms = {f"{f:.{places}f}" for n in kept for f in (n, 100 * n, 100 - n)}
            assert shown in forms, f"{shown} of {row['cells']} is not in {row['file']}"
