"""Waiting out what passes by itself: a full disk, a busy database, too many open files."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from batch_api.store.trouble import StoreError, passes

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


async def patiently(work: Callable[[], Awaitable[_Result]], otherwise: _Result) -> _Result:
    """`otherwise` means: nothing was done, try again later. Whatever else fails is raised."""
    try:
        return await work()
    except (OSError, StoreError) as error:
        if not passes(error):
            raise
        reason = str(error).splitlines()[0]
        log.error("the disk is full or the database busy; trying again", extra={"reason": reason})
        return otherwise
