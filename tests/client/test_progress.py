"""What a person or a log is shown of a batch; what a server says steers no terminal."""

import os
import pty
from contextlib import redirect_stderr
from dataclasses import replace

import pytest

from batch_api.client.progress import Bar, Display, Lines, Rates, Sight
from tests.client.calling import drain

RUNNING = Sight("in_progress", 3, 1, 0, 0)
HALF = Sight("in_progress", 4, 1, 1, 10)
TOLD = "http://x answers 502: [/p] [red]oops\x1b]0;title\x07"


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_what_a_server_says_is_shown_as_it_is(kind: type[Display]) -> None:
    screen, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stderr, redirect_stderr(stderr), kind() as shown:
        shown.show(RUNNING, waits_for=TOLD)
    said = drain(screen)

    assert "[/p] [red]oops" in said
    assert "\x1b]0;" not in said
    assert "\x07" not in said


def test_speeds_are_told_once_something_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines.show(HALF)
        lines.show(replace(HALF, status="completed", completed=3))

    first, last = capsys.readouterr().err.splitlines()
    assert first == "in progress: 2 of 4 lines, 1 failed"
    assert last.startswith("completed: 4 of 4 lines, 1 failed, ")
    assert "lines/s" in last


def test_no_speed_is_told_of_what_was_over_before(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines.show(replace(HALF, status="completed", completed=3))

    assert capsys.readouterr().err == "completed: 4 of 4 lines, 1 failed\n"


def test_no_speed_is_told_of_who_waits_and_then_only_that_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines() as lines:
        lines.show(HALF)
        lines.show(replace(HALF, completed=2), waits_for="the server")
        lines.show(replace(HALF, status="cancelling", completed=2))
        lines.show(replace(HALF, status="cancelled", completed=3))

    _, waiting, still, over = capsys.readouterr().err.splitlines()
    assert "lines/s" not in waiting + still
    assert "lines/s" in over


def test_a_speed_is_that_of_the_last_half_minute() -> None:
    moments = iter([0.0, 10.0, 35.0, 41.0])
    rates = Rates(lambda: next(moments))

    assert rates.of(replace(HALF, completed=0), is_waiting=False) == ""
    assert rates.of(replace(HALF, completed=20), is_waiting=False) == "2.0 lines/s 0 tok/s"
    assert rates.of(replace(HALF, completed=45), is_waiting=False) == "1.0 lines/s 0 tok/s"
    assert rates.of(replace(HALF, completed=45), is_waiting=False) == ""


def test_a_log_is_told_how_far_it_is_and_then_what_it_waits_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines() as lines:
        lines.show(replace(HALF, status="validating", total=None), waits_for="Can't reach it.")
        lines.show(HALF, waits_for="Can't reach it.")

    first, last = capsys.readouterr().err.splitlines()
    assert first == "validating, waiting: Can't reach it."
    assert last == "in progress: 2 of 4 lines, 1 failed; waiting: Can't reach it."
