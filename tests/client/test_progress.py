"""What is said of a batch for a log."""

from dataclasses import replace

import pytest

from batch_api.client.progress import Lines, Sight

HALF = Sight(status="in_progress", total=4, completed=1, failed=1, output_tokens=10)


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
