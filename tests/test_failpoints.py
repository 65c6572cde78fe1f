"""Failpoints are armed by an environment variable alone, and each named window is a real place."""

import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_api.errors import Unusable
from batch_api.failpoints import EXIT_STATUS, WINDOWS, arm
from tests.server import HasEnded, Server

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[1] / "batch_api"


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("no_such=exit", "There is no failpoint no_such"),
        ("orphaned_blob", "'orphaned_blob' is neither"),
        ("orphaned_blob=nap", "'orphaned_blob=nap' is neither"),
        ("orphaned_blob=exit@0", "'orphaned_blob=exit@0' is neither"),
    ],
)
def test_what_is_no_failpoint_is_refused(told: str, sentence: str) -> None:
    with pytest.raises(Unusable, match=sentence):
        arm(told)


def test_a_server_refuses_an_unknown_failpoint_in_one_sentence(tmp_path: Path) -> None:
    server = _server(tmp_path, "no_such=exit")

    with pytest.raises(HasEnded, match=r"with 2\nbatch-api: There is no failpoint no_such\.\n$"):
        server.start()


def test_an_armed_failpoint_is_warned_of_and_ends_the_process_at_its_time(tmp_path: Path) -> None:
    server = _server(tmp_path, "replicas_execute_once=sleep:1;recovery_crash_loop=exit@1")
    with pytest.raises(HasEnded, match=f"with {EXIT_STATUS}"):
        server.start()

    told = [json.loads(line)["message"] for line in server.log_tail().splitlines()]
    assert told == ["failpoints are armed", "failpoint reached", "failpoint reached"]


def test_each_window_is_one_place_in_the_code() -> None:
    placed = Counter(name for path in PACKAGE.rglob("*.py") for name in _failpoints(path))

    assert placed == dict.fromkeys(WINDOWS, 1)


def test_each_window_has_a_test_of_its_name() -> None:
    tests = ast.parse((Path(__file__).parent / "faults" / "test_crash_windows.py").read_text())
    names = {node.name for node in tests.body if isinstance(node, ast.FunctionDef)}

    assert {f"test_{window}" for window in WINDOWS} <= names


def _server(folder: Path, failpoints: str) -> Server:
    return Server(folder, "http://127.0.0.1:9", settings={"failpoints": failpoints})


def _failpoints(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id="failpoint"), args=[ast.Constant(value=str(name))]):
                yield name
