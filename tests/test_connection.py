"""Raw bytes against the connections that `listen` makes, in front of a small app."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from batch_api.connection import MOST_HEAD_BYTES, MOST_HEADERS, Connection
from tests.listening import connected, listening, said_to

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_SECONDS = 1.0
HOST = b"Host: 127.0.0.1\r\n"
LAST = HOST + b"Connection: close\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * 65536


@dataclass
class App:
    """Says what was asked; `/flood` answers without an end, `/think` never begins to."""

    left: list[str] = field(default_factory=list)
    """The paths whose client went away before the answer was whole."""
    asked: int = 0
    flooded_bytes: int = 0

    def begin(self) -> None:
        self.asked = self.flooded_bytes = 0
        self.left.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.asked += 1
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            self.left.append(scope["path"])
            return
        match scope["path"]:
            case "/flood":
                await self._until_left(scope, receive, self._flood(send))
            case "/think":
                await self._until_left(scope, receive, asyncio.Event().wait())
            case _:
                await answer(send, told(scope, body))

    async def _flood(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            self.flooded_bytes += len(PIECE)

    async def _until_left(self, scope: Scope, receive: Receive, work: Awaitable[object]) -> None:
        working = asyncio.ensure_future(work)
        while (await receive())["type"] != "http.disconnect":
            pass
        working.cancel()
        self.left.append(scope["path"])


def told(scope: Scope, body: bytes) -> bytes:
    facts = {
        "path": scope["path"],
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "headers": [name.decode() for name, _ in scope["headers"]],
        "body": len(body),
    }
    return json.dumps(facts).encode()


async def answer(send: Send, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Running:
    app: App
    port: int

    async def says(self, request: bytes) -> tuple[int, dict[str, object]]:
        """The status and the JSON of the only answer."""
        head, _, body = (await said_to(self.port, request)).partition(b"\r\n\r\n")
        assert b"HTTP/1.1" not in body, "it answered twice"
        return int(head.split()[1]), json.loads(body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    app = App()
    async with listening(app, client_timeout_seconds=PATIENCE_SECONDS) as port:
        yield Running(app, port)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 the app has no event for each
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 100_000 + b"\r\n\r\n", 431, "headers"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 10_000_000, 431, "headers"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * MOST_HEADERS + b"\r\n", 431, "headers"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "url"),
        (b"\r\n" * MOST_HEAD_BYTES, 431, "headers"),
    ],
    ids=["long", "endless", "many", "url", "blank lines"],
)
async def test_a_head_that_is_too_large_is_refused_in_words(
    running: Running, request_: bytes, status: int, code: str
) -> None:
    found, body = await running.says(request_)

    error = body["error"]
    assert isinstance(error, dict)
    assert found == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["code"].startswith(code)


async def test_a_refusal_without_an_app_has_its_id_and_ends_the_connection(
    running: Running,
) -> None:
    head, _, _ = (await said_to(running.port, b"nonsense\r\n\r\n")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert re.search(rb"\r\nx-request-id: req_[0-9a-f]{32}\r\n", head)
    assert b"\r\nconnection: close" in head
    assert b"server:" not in head.lower()


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT example.com:443 HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http://[::1 HTTP/1.1",
        b"GET http://a:99999999/ HTTP/1.1",
        b"GET http:///x HTTP/1.1",
    ],
)
async def test_a_target_that_is_none_is_refused_and_its_sender_hung_up_on(
    running: Running, line: bytes
) -> None:
    """Though nothing of his was ever run; the server serves others meanwhile and afterwards."""
    async with (
        connected(running.port, line + b"\r\n" + HOST + b"\r\n") as (reader, writer),
        asyncio.timeout(30),
    ):
        said = await reader.read()
        with pytest.raises(ConnectionError):
            await dribble(writer)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert (await running.says(b"GET / HTTP/1.1\r\n" + LAST))[0] == 200


async def dribble(writer: asyncio.StreamWriter) -> None:
    """Until the server has hung up: raises ConnectionError then."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(PATIENCE_SECONDS / 10)


async def test_a_connection_that_can_not_be_looked_at_ends_nothing_but_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(App(), connection=Broken) as port:
        said = [await said_to(port, b"") for _ in range(2)]

    assert said == [b"", b""]
    assert caplog.text.count("a connection could not be looked at") == 2


class Broken(Connection):
    def look(self, now: float) -> None:
        raise RuntimeError(f"at {now}")


async def test_a_head_just_within_the_limit_is_read(running: Running) -> None:
    header = b"A: " + b"x" * (MOST_HEAD_BYTES - 100) + b"\r\n"

    status, told = await running.says(b"GET /a HTTP/1.1\r\n" + header + LAST)

    assert (status, told["path"]) == (200, "/a")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"A: b\r\n Content-Length: 5\r\n",
        b"A: b\rContent-Length: 5\r\n",
        b"A: b\x00\r\n",
    ],
)
async def test_a_body_whose_end_two_servers_could_see_differently_is_refused(
    running: Running, head: bytes
) -> None:
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + LAST

    status, body = await running.says(b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n" + smuggled)

    assert (status, set(body)) == (400, {"error"})


@pytest.mark.parametrize(
    "rest",
    [b"-1\r\n\r\n", b"1;" + b"a" * 1_000_000, b"1\r\na\r\n0\r\nA: " + b"a" * 1_000_000],
    ids=["a bad size", "an endless extension", "an endless trailer"],
)
async def test_chunks_that_are_none_end_the_connection_without_an_answer(
    running: Running, rest: bytes
) -> None:
    said = b""
    with suppress(ConnectionResetError):  # as it has not read all that came
        said = await said_to(running.port, CHUNKED + rest)

    assert said == b""


async def test_what_follows_a_body_is_no_header(running: Running) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\n" + CHUNKED.partition(b"\r\n")[2]
    _, told = await running.says(head + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n")

    assert told["headers"] == ["connection", "host", "transfer-encoding"]
    assert told["body"] == 1


async def test_nobody_is_believed_who_says_that_he_is_somebody_else(running: Running) -> None:
    lies = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"

    _, told = await running.says(b"GET / HTTP/1.1\r\n" + lies + LAST)

    assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")


async def test_every_answer_tells_browsers_to_keep_to_its_type(running: Running) -> None:
    for request in (b"GET / HTTP/1.1\r\n" + LAST, b"nonsense\r\n\r\n"):
        head = (await said_to(running.port, request)).partition(b"\r\n\r\n")[0]
        assert b"x-content-type-options: nosniff\r\n" in head
        assert b"x-frame-options: DENY\r\n" in head
        assert b"referrer-policy: same-origin\r\n" in head


async def test_requests_that_come_at_once_are_answered_in_turn(running: Running) -> None:
    requests = [b"GET /%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(5)]

    said = await said_to(running.port, b"".join(requests) + b"GET /5 HTTP/1.1\r\n" + LAST)

    assert re.findall(rb'"path": "/(\d)"', said) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_who_sends_thousands_of_requests_at_once_gets_no_answer(running: Running) -> None:
    assert await said_to(running.port, (b"GET /think HTTP/1.1\r\n" + HOST + b"\r\n") * 3_000) == b""


async def test_work_ends_when_its_client_leaves_though_the_next_request_was_read(
    running: Running,
) -> None:
    running.app.begin()
    two = b"GET /think HTTP/1.1\r\n" + HOST + b"\r\nGET /next HTTP/1.1\r\n" + HOST + b"\r\n"

    async with connected(running.port, two):
        await until(lambda: running.app.asked == 1)

    await until(lambda: running.app.left == ["/think"])


SILENT = {
    "nothing": b"",
    "half a head": b"GET / HT",
    "a piece of a body": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 500\r\n\r\nabc",
    "no chunk": CHUNKED,
}


async def test_who_says_no_more_is_hung_up_on(running: Running) -> None:
    async with asyncio.TaskGroup() as group:
        saying = {name: group.create_task(said_to(running.port, SILENT[name])) for name in SILENT}
        asking = group.create_task(said_to(running.port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))

    assert {name: said.result() for name, said in saying.items()} == dict.fromkeys(SILENT, b"")
    assert asking.result().startswith(b"HTTP/1.1 200 ")


async def test_who_dribbles_is_hung_up_on(running: Running) -> None:
    head = b"GET / HTTP/1.1\r\nA: "
    body = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9999\r\n\r\n"

    head_seconds, body_seconds = await asyncio.gather(
        *(dribbled_seconds(running.port, begun) for begun in (head, body))
    )

    assert head_seconds >= PATIENCE_SECONDS
    assert body_seconds >= PATIENCE_SECONDS


async def dribbled_seconds(port: int, begun: bytes) -> float:
    """How long the server takes a byte now and then."""
    began = time.monotonic()
    async with connected(port, begun) as (reader, writer), asyncio.timeout(30):
        hanging_up = asyncio.ensure_future(reader.read())
        while not hanging_up.done():
            writer.write(b"x")
            await asyncio.wait([hanging_up], timeout=0.1)
        assert isinstance(hanging_up.exception(), ConnectionResetError | None)
    return time.monotonic() - began


async def test_a_slow_body_on_a_living_line_is_taken_however_long_it_takes(
    running: Running,
) -> None:
    pieces = 12
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n" % (pieces * 400)
    async with connected(running.port, head + LAST) as (reader, writer), asyncio.timeout(30):
        for _ in range(pieces):
            await asyncio.sleep(PATIENCE_SECONDS / 5)  # more than twice its patience in all
            writer.write(b"x" * 400)
        said = await reader.read()

    assert json.loads(said.partition(b"\r\n\r\n")[2])["body"] == pieces * 400


async def test_who_waits_for_an_answer_is_not_hung_up_on(running: Running) -> None:
    running.app.begin()
    async with connected(running.port, b"GET /think HTTP/1.1\r\n" + LAST) as (reader, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 3 * PATIENCE_SECONDS)
        assert running.app.left == []

    await until(lambda: running.app.left == ["/think"])


async def test_who_takes_nothing_is_hung_up_on_and_little_waits_for_him(running: Running) -> None:
    running.app.begin()
    async with connected(running.port, b"GET /flood HTTP/1.1\r\n" + LAST, deaf=True):
        await until(lambda: running.app.left == ["/flood"])

    assert 0 < running.app.flooded_bytes < 2_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def cramped() -> AsyncIterator[Running]:
    app = App()
    async with listening(app, most_connections=2) as port:
        yield Running(app, port)


async def test_a_new_client_takes_the_place_of_the_one_that_is_idle_for_longest(
    cramped: Running,
) -> None:
    async with connected(cramped.port) as (oldest, _), connected(cramped.port) as (other, _):
        status, _ = await cramped.says(b"GET / HTTP/1.1\r\n" + LAST)

        assert status == 200
        assert await oldest.read() == b""
        assert not other.at_eof()


async def test_a_client_for_whom_there_is_no_room_shall_come_back(cramped: Running) -> None:
    think = b"GET /think HTTP/1.1\r\n" + LAST
    async with connected(cramped.port, think) as (one, _), connected(cramped.port, think):
        await until(lambda: cramped.app.asked == 2)

        said = await said_to(cramped.port, b"")

        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in said
        assert not one.at_eof()
