"""Looks at a batch again and again until it is over."""

import time
from typing import TYPE_CHECKING

from batch_api.client.progress import Display, Sight, display
from batch_api.client.remote import Away
from batch_api.lifecycle import BatchStatus

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Remote

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 300.0
"""With a server that can't be reached: it may be starting anew."""


def follow(remote: "Remote", id: str) -> "Batch":
    """The batch at its end. Raises Unusable."""
    pause = _FIRST_PAUSE_SECONDS
    batch = remote.batch(id)
    with display() as shown:
        while True:
            shown.show(sight_of(batch))
            if BatchStatus(batch.status).is_final:
                return batch
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_PAUSE_SECONDS)
            batch = _look(remote, batch, shown)


def _look(remote: "Remote", batch: "Batch", shown: Display) -> "Batch":
    began = time.monotonic()
    while True:
        try:
            return remote.batch(batch.id)
        except Away as away:
            if time.monotonic() > began + _PATIENCE_SECONDS:
                raise
            shown.show(sight_of(batch), waits_for=str(away))
            time.sleep(_LONGEST_PAUSE_SECONDS)


def sight_of(batch: "Batch") -> Sight:
    counts, usage = batch.request_counts, batch.usage
    return Sight(
        status=batch.status,
        total=(counts.total if counts else 0) or None,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
        output_tokens=usage.output_tokens if usage else 0,
    )
