"""What a tenant may take up: bytes, uploads at once, batches under way.

The database counts what is there; what is still coming in is counted here.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.incoming import Incoming
from batch_api.errors import QuotaExceeded, TooManyRequests
from batch_api.settings import Settings
from batch_api.store import batches, files
from batch_api.store.database import OneTenant

_BESIDE_THE_FILE_BYTES = 64 * 1024
"""Of a body: the rest of the form. What is recorded is counted to the byte."""


@dataclass(slots=True)
class _Arriving:
    """The uploads of a tenant that are coming in."""

    count: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Room:
    """A tenant's, in bytes."""

    limit: int
    stored: int

    def check(self, coming: int) -> None:
        """Raises QuotaExceeded if so many more are too many."""
        if self.stored + coming > self.limit:
            raise QuotaExceeded(
                "You exceeded your current quota of stored bytes: "
                f"Limit {self.limit}, stored {self.stored}, coming in at least {coming}. "
                "Please delete files that you no longer need."
            )


class Quotas:
    def __init__(self, settings: Settings) -> None:
        self._most_bytes = settings.max_stored_bytes
        self._most_uploads = settings.max_uploads_at_once
        self._most_batches = settings.max_active_batches
        self._arriving: defaultdict[str, _Arriving] = defaultdict(_Arriving)

    @asynccontextmanager
    async def receiving(self, database: OneTenant, incoming: Incoming) -> AsyncIterator[Incoming]:
        """The body, to be read within the block; what it takes up is held for it until then.

        Raises TooManyRequests, and QuotaExceeded, also as the body is read.
        """
        arriving = self._arriving[database.tenant]
        if arriving.count >= self._most_uploads:
            raise TooManyRequests(
                f"Too many uploads at once: Limit {self._most_uploads}. Please try again in 1s.",
                headers={"retry-after": "1"},
            )
        arriving.count += 1
        hold = _Hold(arriving)
        try:
            async with database.read() as session:
                room = _Room(self._most_bytes, stored=await files.stored_bytes(session))
            hold.take(incoming.announced_bytes, room)
            yield replace(incoming, chunks=hold.counted(incoming.chunks, room))
        finally:
            arriving.bytes -= hold.bytes
            arriving.count -= 1

    async def check_stored(self, session: AsyncSession, bytes: int) -> None:
        """To the byte, in the transaction that adds them: who came meanwhile is counted.

        Raises QuotaExceeded.
        """
        _Room(self._most_bytes, stored=await files.stored_bytes(session)).check(bytes)

    async def check_batches(self, session: AsyncSession) -> None:
        """Before one is added. Raises TooManyRequests."""
        active = await batches.count_active(session)
        if active >= self._most_batches:
            raise TooManyRequests(
                f"Too many active batches: Limit {self._most_batches}, active {active}. "
                "Please try again once some have ended.",
                headers={"x-should-retry": "false"},
            )


class _Hold:
    """What one upload takes up while it comes in: as announced, or as far as it has come."""

    def __init__(self, arriving: _Arriving) -> None:
        self._arriving = arriving
        self.bytes = 0

    def take(self, body_bytes: int, room: _Room) -> None:
        """Raises QuotaExceeded if there is no room for this and all others together."""
        more = max(body_bytes - _BESIDE_THE_FILE_BYTES - self.bytes, 0)
        self.bytes += more
        self._arriving.bytes += more
        room.check(self._arriving.bytes)

    async def counted(self, chunks: AsyncIterator[bytes], room: _Room) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in chunks:
            received += len(chunk)
            self.take(received, room)
            yield chunk
