"""The mutation check: is a fault in the attack code noticed by the tests?

    python benchmarks/mutation.py                  every fault of faults.py; about ten minutes
    python benchmarks/mutation.py "sign flipped"   some of them, by name; nothing is written

Each fault is put into a copy of the project, one at a time, and the tests about that line run there. They
must pass on the copy as it is. A fault is caught when one of them fails; running out of time or
tests that cannot be collected are recorded as such and do not count.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[1]
SEED, LIMIT = 0, 120  # seconds per fault
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider")


def mutated(fault: Fault, source: str) -> str:
    """Return the file's text with the fault in it.

    Raises:
        ValueError: the old text is not there exactly once.
    """
    count = source.count(fault.old)
    if count != 1:
        raise ValueError(f"{fault.name}: {fault.file} holds {fault.old!r} {count} times, not once")
    return source.replace(fault.old, fault.new)


def run(tests: tuple[str, ...], folder: Path, limit: float) -> tuple[str, str]:
    """Run tests of the copy in ``folder``; return passed, failed or what else, and which failed."""
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "WALNUT_DATA": "",
    }  # fmt: skip
    try:
        done = subprocess.run(
            [*PYTEST, "-rfE", *tests], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timeout", ""
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    by = told[0].split(" - ")[0].partition(" ")[2] if told else ""
    return {0: "passed", 1: "failed"}.get(done.returncode, f"pytest says {done.returncode}"), by


def copy_into(folder: Path) -> None:
    """Copy the project, and make sure that the copy is what a process with that path imports."""
    src = folder / "src"
    for part in ("src", "tests", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "results", "cache")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    where = subprocess.run(
        [sys.executable, "-c", "import walnut; print(walnut.__file__)"], check=True, text=True,
        env=os.environ | {"PYTHONPATH": str(src)}, capture_output=True, cwd=folder,
    ).stdout.strip()  # fmt: skip
    if not Path(where).resolve().is_relative_to(src.resolve()):
        raise RuntimeError(f"the copy in {src} is not what is imported, but {where}")


def check(fault: Fault, folder: Path) -> dict[str, Any]:
    """Put one fault into the copy, run its tests, and take it out again."""
    path, began = folder / "src" / "walnut" / fault.file, time.perf_counter()
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutated(fault, whole), encoding="utf-8")
    try:
        outcome, by = run(fault.tests, folder, LIMIT)
    finally:
        path.write_text(whole, encoding="utf-8")
    return {
        "fault": fault.name, "file": fault.file, "caught": outcome == "failed", "outcome": outcome,
        "by": by, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def main(names: list[str]) -> int:
    """Check the faults named, or all; return 0 where nine of ten are caught."""
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    if not chosen:
        raise SystemExit(f"no such fault; there are: {', '.join(f.name for f in FAULTS)}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_into(folder)
        tests = tuple(dict.fromkeys(test for fault in chosen for test in fault.tests))
        outcome, by = run(tests, folder, LIMIT * 10)
        if outcome != "passed":
            raise SystemExit(f"the tests do not pass without any fault: {outcome} {by}")
        for fault in chosen:
            rows.append(check(fault, folder))
            row = rows[-1]
            word = "caught" if row["caught"] else f"NOT CAUGHT ({row['outcome']})"
            print(f"{fault.name:55s} {word:12s} {row['seconds']:6.1f} s  {row['by']}", flush=True)
    caught = sum(row["caught"] for row in rows)
    print(f"{caught} of {len(rows)} faults caught")
    if not names:
        record.write(
            "mutation", SEED,
            {"faults": len(rows), "caught": caught, "share": round(caught / len(rows), 4), "rows": rows},
        )  # fmt: skip
    return 0 if caught >= 0.9 * len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
