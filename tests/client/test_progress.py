"""What a server says must not steer the terminal, nor break the bar."""

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from batch_api.client.progress import Bar, Display, Lines, Sight

RUNNING = Sight("in_progress", 3, 1, 0, 0)
TOLD = "http://x answers 502: [/p] [red]oops\x1b]0;title\x07"


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_what_a_server_says_is_shown_as_it_is(kind: type[Display]) -> None:
    with terminal() as (screen, stderr):
        before, sys.stderr = sys.stderr, stderr
        try:
            with kind() as shown:
                shown.show(RUNNING, waits_for=TOLD)
        finally:
            sys.stderr = before
        said = os.read(screen, 65_536).decode()

    assert "[/p] [red]oops" in said
    assert "\x1b]0;" not in said
    assert "\x07" not in said


@contextmanager
def terminal() -> Iterator[tuple[int, TextIO]]:
    """What is seen of it, and where to write."""
    screen, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stderr:
        yield screen, stderr
    os.close(screen)
