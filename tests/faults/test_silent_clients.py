"""Clients by the thousand that say nothing, take nothing, or only listen."""

import asyncio
import resource
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import pytest
from openai import OpenAI

from batch_api.commands.listening import allow_many_files
from batch_api.settings import MIB
from tests.faults.job import Job
from tests.listening import connected
from tests.server import Server, StandinProcess
from tests.standin import FLOOD, LULL, MODEL

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]

CLIENTS = 1_000
LINES = 1_500
CHATS = 40
TIMEOUT_SECONDS = 75
MOST_BYTES_EACH = 400_000  # for a client that takes nothing
HOST = "Host: 127.0.0.1\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """For the clients; the server sees to itself, though it begins with few."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allow_many_files() > 4 * CLIENTS
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@dataclass(frozen=True)
class Site:
    server: Server
    standin: StandinProcess
    client: OpenAI

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def memory_bytes(self) -> int:
        memory: int = psutil.Process(self.server.pid).memory_info().rss
        return memory

    def connections(self) -> int:
        """Of clients, this one's among them."""
        sockets = psutil.Process(self.server.pid).net_connections("tcp")
        return sum(1 for each in sockets if each.laddr.port == self.port and each.raddr)

    def open_files(self) -> int:
        return psutil.Process(self.server.pid).num_fds()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    few_files = ["prlimit", "--nofile=512:"]
    settings = {"client_timeout_seconds": TIMEOUT_SECONDS, "log_level": "warning"}
    with (
        StandinProcess(tmp_path, journal=False) as standin,
        Server(tmp_path, standin.url, settings=settings, under=few_files) as server,
        server.client() as client,
    ):
        yield Site(server, standin, client)


@dataclass(frozen=True)
class Pace:
    lines_a_second: float
    chat_seconds: float
    """The median."""


def measure(site: Site, name: str) -> Pace:
    """A batch, and one chat after the other meanwhile."""
    began = time.monotonic()
    job = Job([f"{name}-{number}" for number in range(LINES)])
    job.create(site.client)
    chats = [chat(site.client) for _ in range(CHATS)]
    job.complete(site.server, site.client)
    return Pace(LINES / (time.monotonic() - began), statistics.median(chats))


def chat(client: OpenAI) -> float:
    """How long it takes."""
    began = time.monotonic()
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.choices[0].message.content == "olleh"
    return time.monotonic() - began


@asynccontextmanager
async def crowd(
    port: int, request: bytes, *, deaf: bool = False
) -> AsyncIterator[list[Connection]]:
    """So many clients that have sent this; `deaf` ones take nothing of what they are told."""
    connections: list[Connection] = []
    async with asyncio.TaskGroup() as group:
        leave = asyncio.Event()

        async def stay() -> None:
            async with connected(port, request, deaf=deaf) as connection:
                connections.append(connection)
                await leave.wait()

        for number in range(CLIENTS):
            group.create_task(stay())
            if number % 100 == 99:
                await asyncio.sleep(0.05)
        await until(lambda: len(connections) == CLIENTS)
        try:
            yield connections
        finally:
            leave.set()


def chat_request(text: str) -> bytes:
    body = msgspec.json.encode(
        {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(150):
        while not is_so():  # noqa: ASYNC110 another process makes it so
            await asyncio.sleep(0.1)


async def settled(site: Site) -> None:
    """Until nobody takes any more of what the server has to tell."""
    before = -1.0
    while site.server.cpu_seconds() - before > 0.1:
        before = site.server.cpu_seconds()
        await asyncio.sleep(1)


async def test_work_goes_on_among_thousands_who_say_and_take_nothing(site: Site) -> None:
    file = site.client.files.create(file=("big.bin", b"x" * 16 * MIB), purpose="user_data")
    download = f"GET /v1/files/{file.id}/content HTTP/1.1\r\n{HOST}\r\n".encode()
    await asyncio.to_thread(measure, site, "warm")
    alone = await asyncio.to_thread(measure, site, "alone")
    before = site.memory_bytes()

    async with (
        crowd(site.port, b"") as silent,
        crowd(site.port, download, deaf=True),
        crowd(site.port, chat_request(f"{FLOOD}"), deaf=True),
    ):
        await until(lambda: site.connections() > 3 * CLIENTS)
        await settled(site)
        crowded = await asyncio.to_thread(measure, site, "crowded")
        assert not silent[-1][0].at_eof(), "they left too early to be in the way"
        grown = site.memory_bytes() - before
        await until(lambda: site.connections() < 10)
        assert all(reader.at_eof() for reader, _ in silent)
        await until(lambda: site.standin.stats().open == 0)

    print(
        f"lines/s: {alone.lines_a_second:.0f}, crowded {crowded.lines_a_second:.0f};"
        f" chats: {alone.chat_seconds * 1000:.1f} ms, crowded {crowded.chat_seconds * 1000:.1f};"
        f" memory: {grown / 1e6:.0f} MB for {3 * CLIENTS} clients"
    )
    assert grown < 2 * CLIENTS * MOST_BYTES_EACH
    assert crowded.lines_a_second > alone.lines_a_second / 5
    assert crowded.chat_seconds < alone.chat_seconds * 5 + 0.1


async def test_thousands_who_only_listen_leave_nothing_behind(site: Site) -> None:
    await asyncio.to_thread(measure, site, "warm")
    files, memory = site.open_files(), []
    for _ in range(3):
        async with crowd(site.port, chat_request(f"{LULL}")) as listening:
            await asyncio.gather(*(reader.readuntil(b"data: ") for reader, _ in listening))
            assert site.standin.stats().open == CLIENTS
            chat(site.client)
        await until(lambda: site.standin.stats().open == 0)
        await until(lambda: site.open_files() <= files + 5)
        memory.append(site.memory_bytes())

    print(f"memory: {[round(each / 1e6) for each in memory]} MB")
    assert memory[-1] - memory[0] < 20_000_000
