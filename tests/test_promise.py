"""`PROMISE.md` names only tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PROMISE = TESTS.parent / "PROMISE.md"


def test_each_test_that_the_promise_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PROMISE.read_text()))
    sources = [file.read_text() for file in TESTS.rglob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert named
    assert named <= there, sorted(named - there)


def test_each_fault_that_the_promise_names_has_a_test() -> None:
    rows = [line for line in PROMISE.read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith(("| what happens", "| ---"))]
    assert faults
    assert [row for row in faults if "`test_" not in row] == []
