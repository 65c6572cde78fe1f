"""Looks at a batch again and again until it is over."""

import time
from typing import TYPE_CHECKING

from batch_api.client.patience import patiently
from batch_api.client.progress import Display, Sight, display
from batch_api.client.sentences import Away
from batch_api.errors import Unusable
from batch_api.lifecycle import BatchStatus

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Remote

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_NEEDS_AN_UPSTREAM = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
_UNSEEN = Sight(status="connecting", total=None, completed=0, failed=0, output_tokens=0)


def follow(remote: "Remote", id: str) -> "Batch":
    """The batch at its end. Raises Unusable."""
    pause = _FIRST_PAUSE_SECONDS
    sight, condition = _UNSEEN, _Condition(remote)
    with display() as shown:
        while True:
            batch = _look(remote, id, shown, sight)
            before, sight = sight, sight_of(batch)
            if BatchStatus(batch.status).is_final:
                shown.show(sight)
                return batch
            is_still = sight == before and batch.status in _NEEDS_AN_UPSTREAM
            shown.show(sight, waits_for=condition.waits_for() if is_still else None)
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_PAUSE_SECONDS)


def _look(remote: "Remote", id: str, shown: Display, last: Sight) -> "Batch":
    return patiently(
        lambda: remote.batch(id), saying=lambda reason: shown.show(last, waits_for=reason)
    )


class _Condition:
    """Of the server, which is asked for it while a batch does not move."""

    def __init__(self, remote: "Remote") -> None:
        self._remote = remote
        self._is_told = True

    def waits_for(self) -> str | None:
        """None of a server that is ready, or does not tell."""
        if not self._is_told:
            return None
        try:
            report = self._remote.readiness()
        except Away:
            return None  # the next look at the batch says so
        except Unusable:  # OpenAI's own server has no such route
            self._is_told = False
            return None
        return report.waits_for


def sight_of(batch: "Batch") -> Sight:
    counts, usage = batch.request_counts, batch.usage
    return Sight(
        status=batch.status,
        total=(counts.total if counts else 0) or None,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
        output_tokens=usage.output_tokens if usage else 0,
    )
