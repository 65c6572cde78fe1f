"""Names that nobody answers for: who has to wait for them, and who has not."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batch_api.lookups import Lookups
from batch_api.receivers import Message, Receivers, Reception
from tests.receiver import SECRET, Receiver
from tests.scheduler.site import Site, until
from tests.store import rows

MESSAGE = Message("evt_1", b"{}")
HANGING = [f"hanging-{number}.test" for number in range(40)]
"""More than asyncio's pool has threads."""


class Resolver:
    """Knows `localhost`; says nothing of `hanging-…` until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._let_go = threading.Event()

    def let_go(self) -> None:
        self._let_go.set()

    def look_up(self, host: str, *rest: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self._let_go.wait()
        return socket.getaddrinfo(host.replace("here.test", "localhost"), *rest)


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.let_go()


@pytest.fixture
async def receivers(resolver: Resolver) -> AsyncIterator[Receivers]:
    async with Receivers(SECRET, look_up=resolver.look_up) as receivers:
        yield receivers


@asynccontextmanager
async def all_hang(receivers: Receivers, resolver: Resolver) -> AsyncIterator[None]:
    telling = [
        asyncio.create_task(receivers.tell(f"http://{host}/", MESSAGE, now=0.0)) for host in HANGING
    ]
    await until(lambda: len(resolver.asked) == len(HANGING))
    yield
    for task in telling:
        task.cancel()
    await asyncio.gather(*telling, return_exceptions=True)


async def test_lookups_that_hang_keep_neither_files_nor_the_database_waiting(
    receivers: Receivers, resolver: Resolver, site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    async with asyncio.timeout(60), all_hang(receivers, resolver):
        assert await asyncio.to_thread(path.read_bytes) == b"content"
        await rows.add_batch(site.database)


async def test_whatever_goes_wrong_in_a_lookup_is_told_to_who_waits() -> None:
    def break_down(*_: Any) -> list[Any]:
        raise MemoryError

    async with asyncio.timeout(30):
        with pytest.raises(MemoryError):
            await Lookups(break_down).resolve("here.test", 80)


async def test_lookups_that_hang_keep_no_other_receiver_waiting(
    receivers: Receivers, resolver: Resolver
) -> None:
    with Receiver() as receiver:
        url = receiver.url().replace("127.0.0.1", "here.test")
        async with asyncio.timeout(60), all_hang(receivers, resolver):
            assert await receivers.tell(url, MESSAGE, now=0.0) == Reception()

        assert len(receiver.heard) == 1


async def test_a_name_that_hangs_is_asked_for_once_and_not_answering_in_time(
    resolver: Resolver,
) -> None:
    async with Receivers(SECRET, look_up=resolver.look_up, timeout_seconds=0.1) as receivers:
        told = [await receivers.tell(f"http://{HANGING[0]}/", MESSAGE, now=0.0) for _ in range(3)]

    assert told == [Reception("does not answer in time")] * 3
    assert resolver.asked == HANGING[:1]


async def test_a_name_that_is_none_can_not_be_reached(receivers: Receivers) -> None:
    for name in ("nobody.invalid", "x" * 64 + ".test"):
        told = await receivers.tell(f"http://{name}/", MESSAGE, now=0.0)
        assert told.failure in ("can't be reached", "breaks off, or does not speak HTTP")
