"""Windows in which a test can kill or delay the process. Unarmed, each is one look into a dict.

A window is named for the fault that would show if the process died there, or if somebody else were
quicker.
"""

import asyncio
import logging
import os
import re
from dataclasses import dataclass

from batch_api.errors import Unusable

log = logging.getLogger(__name__)

EXIT_STATUS = 86

WINDOWS = {
    "create_crash_after_store": "a batch is committed, its client not told",
    "cancel_event_lost": "a cancel is committed, nobody woken and its client not told",
    "cancel_reverted": "a batch is found valid, its start not committed",
    "cancel_racing_completion": "answers have come, their group not committed",
    "duplicate_execution": "a group of answers is committed, nobody told",
    "worker_crash_strands_job": "an attempt is over, its lease not given back",
    "zombie_owner_burns_inference": "leases are due to be renewed, and are not",
    "orphaned_blob": "a blob is published, no row speaks of it",
    "finalization_strand": "a batch's files are published, its end not committed",
    "terminal_overwrite": "a finalizer is about to commit the end that it has in mind",
    "recovery_crash_loop": "the leases of a dead process are taken back, its blobs not swept",
    "webhook_lost": "a batch has ended, its receiver not told",
    "webhook_told_twice": "a receiver has answered, and it is not recorded",
    "replicas_execute_once": "a data folder is about to be locked",
}

_TOLD = re.compile(r"(?P<name>\w+)=(exit|sleep:(?P<ms>\d+))(@(?P<nth>[1-9]\d*))?")


class BadFailpoint(Unusable):
    pass


@dataclass(slots=True)
class _Trap:
    name: str
    seconds: float | None
    """To sleep; None: exit."""
    nth: int | None
    """The time that counts; None: every time."""
    times: int = 0

    async def spring(self) -> None:
        self.times += 1
        if self.nth not in (None, self.times):
            return
        log.warning("failpoint reached", extra={"failpoint": self.name})
        if self.seconds is None:
            os._exit(EXIT_STATUS)
        await asyncio.sleep(self.seconds)


# Of the process, as dying is.
_armed: dict[str, _Trap] = {}


def arm(told: str) -> None:
    """`name=exit` or `name=sleep:ms`, both perhaps with `@n` for the nth time only; after each `;`
    another. Raises BadFailpoint.
    """
    traps = [_trap(one) for one in told.split(";") if one]
    _armed.update((trap.name, trap) for trap in traps)
    if traps:
        log.warning("failpoints are armed", extra={"failpoints": told})


async def failpoint(name: str) -> None:
    """Here is the window `name`."""
    trap = _armed.get(name)
    if trap is not None:
        await trap.spring()


def _trap(told: str) -> _Trap:
    match = _TOLD.fullmatch(told)
    if match is None:
        raise BadFailpoint(f"The failpoint {told!r} is neither name=exit nor name=sleep:ms.")
    if match["name"] not in WINDOWS:
        raise BadFailpoint(f"There is no failpoint {match['name']}.")
    seconds = None if match["ms"] is None else int(match["ms"]) / 1000
    return _Trap(match["name"], seconds, None if match["nth"] is None else int(match["nth"]))
