"""Leased requests on their way to the lanes: their bodies are read, then they wait to be sent."""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from batch_api.errors import BadRequest
from batch_api.forbidden import check_body
from batch_api.scheduler.answers import Answered, Judge
from batch_api.store.blobs import read_slices
from batch_api.store.requests import Lease
from batch_api.store.trouble import passes

log = logging.getLogger(__name__)

_READ_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """What the requests of one batch have in common."""

    endpoint: str
    input: Path
    judge: Judge
    media_hosts: Collection[str]
    """To which links in requests may lead."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A leased request, ready to be sent."""

    lease: Lease
    source: Source
    body: bytes


_Page = Sequence[tuple[Lease, Source]]


class Backlog:
    def __init__(self, *, enough: int) -> None:
        """`enough`: requests ready to be sent; bodies may be long, and then it is fewer."""
        self._enough = enough
        self._unread: deque[_Page] = deque()
        self._ready: asyncio.Queue[Errand | None] = asyncio.Queue()
        self._ready_bytes = 0

    @property
    def is_low(self) -> bool:
        return self._ready.qsize() < self._enough and self._ready_bytes < _READ_BYTES

    @property
    def is_all_read(self) -> bool:
        return not self._unread

    def add(self, pairs: Sequence[tuple[Lease, Source]]) -> None:
        """Yet to be read."""
        self._unread.extend(_pages(pairs, _READ_BYTES))

    async def read(self) -> Sequence[Errand | Answered]:
        """The next page: what can be sent is ready then, what can't is answered."""
        page = await asyncio.to_thread(_read, self._unread[0])
        self._unread.popleft()
        for errand in page:
            if isinstance(errand, Errand):
                self._make_ready(errand)
        return page

    async def next(self) -> Errand | None:
        """Waits for one that is ready. None: there are no more."""
        errand = await self._ready.get()
        if errand is not None:
            self._ready_bytes -= len(errand.body)
        return errand

    def withdraw(self, *, but_of: Collection[int] = ()) -> list[Lease]:
        """Take out what was not sent, but of these batches, by number. Not while a page is read."""
        unread = [pair for page in self._unread for pair in page]
        ready = self._take_ready()
        self._unread.clear()
        self.add([pair for pair in unread if pair[0].batch_number in but_of])
        for errand in ready:
            if errand.lease.batch_number in but_of:
                self._make_ready(errand)
        leases = [errand.lease for errand in ready] + [lease for lease, _ in unread]
        return [lease for lease in leases if lease.batch_number not in but_of]

    def end(self, *, readers: int) -> None:
        """Each of them is told that there are no more, once what is ready was taken."""
        for _ in range(readers):
            self._ready.put_nowait(None)

    def _make_ready(self, errand: Errand) -> None:
        self._ready.put_nowait(errand)
        self._ready_bytes += len(errand.body)

    def _take_ready(self) -> list[Errand]:
        taken = [self._ready.get_nowait() for _ in range(self._ready.qsize())]
        self._ready_bytes = 0
        return [errand for errand in taken if errand is not None]


def _pages(pairs: _Page, limit: int) -> Iterator[_Page]:
    """Runs of requests whose bodies have at most `limit` bytes together, or of one longer."""
    page: list[tuple[Lease, Source]] = []
    size = 0
    for lease, source in pairs:
        if page and size + lease.body_length > limit:
            yield page
            page, size = [], 0
        page.append((lease, source))
        size += lease.body_length
    if page:
        yield page


def _read(page: _Page) -> list[Errand | Answered]:
    """Blocks. A line whose input can't be read has failed, unless its batch has ended meanwhile."""
    read: list[Errand | Answered] = []
    for source, pairs in groupby(page, key=itemgetter(1)):
        leases = [lease for lease, _ in pairs]
        places = [(lease.body_offset, lease.body_length) for lease in leases]
        try:
            bodies = read_slices(source.input, places)
        except OSError as error:
            if passes(error):
                raise
            reason = {"input": source.input.name, "reason": str(error)}
            log.error("input is gone or can't be read", extra=reason)
            read += [source.judge.unread(lease) for lease in leases]
            continue
        read += [_errand(lease, source, body) for lease, body in zip(leases, bodies, strict=True)]
    return read


def _errand(lease: Lease, source: Source, body: bytes) -> Errand | Answered:
    try:
        check_body(body, source.media_hosts)
    except BadRequest as error:
        return source.judge.refused(lease, error)
    return Errand(lease, source, body)
