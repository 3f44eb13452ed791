"""Every fault of the mutation check still fits the code it is about (benchmarks/mutation.py runs them)."""

import ast
from pathlib import Path

import pytest

from faults import FAULTS, Fault
from mutation import mutated

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_applies_once_and_leaves_a_program(fault):
    source = (ROOT / "src" / "walnut" / fault.file).read_text(encoding="utf-8")
    changed = mutated(fault, source)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_tests_that_a_fault_names_are_there(fault):
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text


def test_faults_have_names_of_their_own_and_are_enough():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 24


@pytest.mark.parametrize("times", [0, 2])
def test_a_fault_that_fits_no_more_says_so(times):
    fault = Fault("none", "core/rows.py", "a = 1", "a = 2", ())
    with pytest.raises(ValueError, match=f"{times} times, not once"):
        mutated(fault, "a = 1\n" * times)
