"""nginx in front of the batch server: files of any size pass through, slow clients do not."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from batch_api.commands.worker import GRACE_SECONDS
from batch_api.settings import MIB, Settings
from tests.nginx.process import CONFIGURATION, Nginx
from tests.server import Server, StandinProcess
from tests.standin import MODEL, Fault

CHAT = "/v1/chat/completions"
_HEAD = (
    b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
    b"Content-Type: multipart/form-data; boundary=bound\r\n"
)
_MOST_FROM_ONE_ADDRESS = 512


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin")) as standin:
        yield standin


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, standin: StandinProcess) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, standin.url, settings={"log_level": "error"}) as server:
        yield server


@pytest.fixture
def directives() -> dict[str, str]:
    """For a test to wait less."""
    return {}


@pytest.fixture
def front(server: Server, directives: dict[str, str]) -> Iterator[Nginx]:
    address = server.url.removeprefix("http://")
    with Nginx("front.conf", {"batch-api:5000": address}, directives=directives) as nginx:
        yield nginx


@pytest.fixture
async def session(front: Nginx) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(front.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def _upload(
    session: aiohttp.ClientSession, count: int, *, wait_for: "asyncio.Event | None" = None
) -> aiohttp.ClientResponse:
    """A file of so many MiB, chunked, as nobody knows how much will come."""

    async def content() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * MIB
        if wait_for is not None:
            await wait_for.wait()

    form = aiohttp.FormData()
    form.add_field("purpose", "user_data")
    form.add_field("file", content(), filename="content.bin")
    answer = await session.post("/v1/files", data=form)
    await answer.read()
    return answer


async def test_a_file_is_uploaded_and_downloaded_again(session: aiohttp.ClientSession) -> None:
    answer = await _upload(session, 3)
    file = await answer.json()

    async with session.get(f"/v1/files/{file['id']}/content") as content:
        assert await content.read() == b"x" * 3 * MIB


async def test_a_file_is_stored_while_it_comes(
    session: aiohttp.ClientSession, front: Nginx, server: Server
) -> None:
    """nginx passes it on at once, and keeps nothing of it."""
    over = asyncio.Event()
    uploading = asyncio.create_task(_upload(session, 20, wait_for=over))
    async with asyncio.timeout(30):
        while _stored_bytes(server) < 19 * MIB:  # noqa: ASYNC110 by another process
            await asyncio.sleep(0.02)

    assert front.stored_bytes() < MIB
    over.set()
    answer = await uploading
    assert answer.status == 200, await answer.text()


def _stored_bytes(server: Server) -> int:
    files = server.data_dir / "files"
    return sum(path.stat().st_size for path in files.rglob("*.unfinished"))


async def test_what_is_too_large_is_said_by_the_server(session: aiohttp.ClientSession) -> None:
    """For it counts what comes out of a compressed body, too."""
    head = {"content-type": "multipart/form-data; boundary=b", "content-length": str(2**40)}
    async with session.post("/v1/files", headers=head, data=_nothing()) as answer:
        assert answer.status == 413
        assert "bytes" in (await answer.json())["error"]["message"]


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize(
    "directives", [{"client_header_timeout": "1s", "client_body_timeout": "1s"}]
)
@pytest.mark.parametrize("sent", [b"POST /v1/fi", _HEAD, _HEAD + b"\r\n--bound"])
def test_a_client_that_stands_still_is_hung_up_on(front: Nginx, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as client:
        client.settimeout(20)
        client.sendall(sent)

        assert _read_to_the_end(client) in (b"", b"408")


def _read_to_the_end(client: socket.socket) -> bytes:
    """The status, if there was any."""
    received = b""
    try:
        while data := client.recv(4096):
            received += data
    except ConnectionResetError:
        pass
    return received[9:12]


async def test_too_many_requests_from_one_address_are_429(
    session: aiohttp.ClientSession, standin: StandinProcess
) -> None:
    wait = {"model": MODEL, "messages": [{"role": "user", "content": f"{Fault(ending='hang')}hi"}]}
    before = standin.stats().received

    async def ask() -> int:
        async with session.post(CHAT, json=wait) as answer:
            return answer.status

    waiting = [asyncio.create_task(ask()) for _ in range(_MOST_FROM_ONE_ADDRESS)]
    await asyncio.to_thread(standin.wait_until_received, before + _MOST_FROM_ONE_ADDRESS)

    async with session.get("/v1/models") as answer:
        error = (await answer.json())["error"]
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")

    for each in waiting:
        each.cancel()


async def test_a_server_that_is_away_is_a_503_to_wait_for() -> None:
    with Nginx("front.conf", {"batch-api:5000": "127.0.0.1:1"}) as front:
        async with aiohttp.ClientSession(front.url) as session, session.get("/v1/files") as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "server_is_overloaded"


@pytest.mark.parametrize("directives", [{"worker_shutdown_timeout": "1s"}])
async def test_who_listens_for_events_keeps_it_from_ending_for_a_while_only(
    session: aiohttp.ClientSession, front: Nginx
) -> None:
    async with session.get("/events") as events:
        assert await events.content.readline() == b"event: changed\n"

        front.send(signal.SIGQUIT)

        assert await asyncio.to_thread(front.wait_until_ended) == 0


@pytest.mark.parametrize("file", ["front.conf", "workers.conf"])
def test_what_is_in_flight_may_end_as_servers_let_it(file: str) -> None:
    text = (CONFIGURATION / file).read_text()

    (seconds,) = re.findall(r"^worker_shutdown_timeout (\d+)s;$", text, flags=re.MULTILINE)
    assert int(seconds) == Settings().shutdown_grace_seconds == GRACE_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_200_mib_pass_with_flat_memory(
    session: aiohttp.ClientSession, front: Nginx, server: Server, tmp_path: Path
) -> None:
    small = await (await _upload(session, 1)).json()
    async with session.get(f"/v1/files/{small['id']}/content") as content:
        await content.read()
    before, nginx_before = server.peak_memory_bytes(), front.memory_bytes()

    file = await (await _upload(session, 200)).json()
    received = 0
    async with session.get(f"/v1/files/{file['id']}/content") as content:
        async for chunk in content.content.iter_chunked(MIB):
            received += len(chunk)
            assert front.memory_bytes() - nginx_before < 10 * MIB

    assert received == file["bytes"] == 200 * MIB
    assert server.peak_memory_bytes() - before < 50_000_000
    assert front.memory_bytes() - nginx_before < 10 * MIB
    assert front.stored_bytes() < MIB
