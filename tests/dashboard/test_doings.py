"""What a page says of a batch of which nothing is to be seen."""

from dataclasses import replace

import pytest

from batch_api.dashboard.doings import Doings, sentence
from batch_api.lifecycle import BatchStatus

WORKS = {"status": "ok", "models": 1, "up": 1, "down": 0}
LOADING = {"status": "loading", "reason": "a worker is loading"}
AWAY = {"status": "away", "reason": "no upstream tells its models"}
NONE_UP = {"status": "some", "models": 1, "up": 0, "down": 2}
BUSY = Doings(
    status=BatchStatus.IN_PROGRESS,
    leased=32,
    ended=0,
    seconds=185.0,
    in_flight=8,
    is_disk_full=False,
    check=WORKS,
)
IDLE = replace(BUSY, in_flight=0)
QUEUED = replace(IDLE, leased=0)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            BUSY,
            "32 lines are with the workers, or next to be sent; "
            "none has been answered yet, after 3 min 05 s.",
        ),
        (
            replace(BUSY, leased=1, ended=7),
            "1 line is with the workers, or next to be sent; none was answered in the last minute.",
        ),
        (replace(BUSY, is_disk_full=True), "Nothing is sent: the disk is full."),
        (replace(IDLE, check=LOADING), "A worker is loading its model."),
        (replace(IDLE, check=AWAY), "No worker answers."),
        (replace(IDLE, check=NONE_UP), "No worker answers."),
        (replace(IDLE, check=None), "No worker takes requests now."),
        (IDLE, "No worker takes requests now."),
        (replace(IDLE, seconds=2.0), "Its lines are being sent."),
        (QUEUED, "Its lines wait for their turn."),
        (replace(QUEUED, check=LOADING), "A worker is loading its model."),
        (replace(QUEUED, status=BatchStatus.VALIDATING), "Its lines are being checked."),
        (replace(QUEUED, status=BatchStatus.VALIDATING, check=AWAY), "No worker answers."),
        (
            replace(BUSY, status=BatchStatus.CANCELLING, leased=8),
            "Waiting for 8 lines that may still be answered.",
        ),
        (
            replace(QUEUED, status=BatchStatus.CANCELLING),
            "What was not sent is being cancelled.",
        ),
        (replace(QUEUED, status=BatchStatus.FINALIZING), "Its files are being written."),
    ],
)
def test_it_says_what_goes_on_or_what_is_waited_for(seen: Doings, said: str) -> None:
    assert sentence(seen) == said
