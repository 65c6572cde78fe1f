"""What a server says must not steer the terminal, nor break the bar."""

import os
import pty
from contextlib import redirect_stderr

import pytest

from batch_api.client.progress import Bar, Display, Lines, Sight
from tests.client.calling import drain

RUNNING = Sight("in_progress", 3, 1, 0, 0)
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
