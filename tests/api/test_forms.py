"""Forms that nobody would send, cut anywhere: the answer depends on the bytes alone."""

import asyncio
import gzip
import os
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_api.api.decoding import decoded
from batch_api.api.forms import Form
from batch_api.api.incoming import Incoming
from batch_api.errors import APIError, TooLarge
from batch_api.settings import MIB
from batch_api.store.blobs import Blobs

LIMIT = 1000
CONTENT_TYPE = "multipart/form-data; boundary=b"
_MANY = 3_000

FILE = b'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch'
OTHER = b'x: y\r\nContent-Disposition: form-data; name="other"\r\n\r\nz'

# What a parser of forms may stumble over.
BITS = st.sampled_from(
    [
        *(
            b"--b",
            b"--b--",
            b"\r\n",
            b"\n",
            b"\r",
            b"--",
            b"-",
            b"b",
            b":",
            b'"',
            b"\0",
            b"\xff",
            b" ",
        ),
        *(
            FILE,
            PURPOSE,
            OTHER,
            b"Content-Disposition: ",
            b'form-data; name="',
            b";",
            b"\r\n--b\r\n",
        ),
    ]
)
CONTENT = st.lists(st.one_of(BITS, st.binary(max_size=50))).map(b"".join)


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """Whole ones, in part; the others have bytes put in, taken out and cut off."""
    parts = draw(st.lists(st.sampled_from([FILE, PURPOSE, OTHER]), max_size=4))
    filled = [part + draw(CONTENT) if part is FILE else part for part in parts]
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in filled) + b"--b--\r\n"
    for at, taken, put in draw(
        st.lists(
            st.tuples(st.floats(0, 1), st.integers(0, 20), st.one_of(BITS, st.binary(max_size=8))),
            max_size=3,
        )
    ):
        start = int(at * len(body))
        body = body[:start] + put + body[start + taken :]
    return body


@dataclass(frozen=True)
class Understood:
    texts: tuple[tuple[str, str], ...]
    filename: str
    content: bytes


@dataclass(frozen=True)
class Refused:
    status: int
    error: str


def cut(body: bytes, places: Iterable[float]) -> list[bytes]:
    bounds = [0, *sorted(int(place * len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def receive(
    folder: Path, chunks: Iterable[bytes], *, encoding: str = "", limit: int = LIMIT
) -> Understood | Refused:
    """Any other exception than our own errors is the caller's to see."""
    form = Form(file_part="file", fields=("purpose",), limit=lambda _: limit)
    try:
        async with Blobs(folder).receiving("file-1") as writer:
            await form.receive(Incoming(CONTENT_TYPE, 0, decoded(stream(chunks), encoding)), writer)
            filename = form.filename
            writer.seal()
            content = (folder / "file-1.unfinished").read_bytes()
    except APIError as error:
        return Refused(error.status, str(error.body))
    finally:
        assert os.listdir(folder) == []  # noqa: PTH208
    return Understood(tuple(form.texts.items()), filename, content)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory: what is written here is never to be kept."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def check(folder: Path, body: bytes, places: list[float], *, is_packed: bool) -> None:
    async def both() -> None:
        encoding = "gzip" if is_packed else ""
        whole = await receive(folder, [body], encoding=encoding)
        pieces = await receive(folder, cut(body, places), encoding=encoding)
        if is_packed and isinstance(whole, Refused):
            # Which of several faults comes first depends on how much was unpacked with it.
            assert isinstance(pieces, Refused)
            assert {whole.status, pieces.status} <= {400, 413}
        else:
            assert pieces == whole
            assert isinstance(whole, Understood) or whole.status in (400, 413)

    asyncio.run(both())


CUTS = st.lists(st.floats(0, 1), max_size=8)


@given(body=forms(), places=CUTS)
@settings(deadline=None)
def test_a_form_means_the_same_however_it_is_cut(
    folder: Path, body: bytes, places: list[float]
) -> None:
    check(folder, body, places, is_packed=False)


@given(body=forms())
@settings(deadline=None, max_examples=30)
def test_a_form_means_the_same_byte_by_byte(folder: Path, body: bytes) -> None:
    check(folder, body, [n / max(len(body), 1) for n in range(len(body))], is_packed=False)


@st.composite
def packed_forms(draw: st.DrawFn) -> bytes:
    """Of one member or several, and now and then with a byte that is wrong."""
    members = cut(draw(forms()), draw(st.lists(st.floats(0, 1), max_size=2)))
    packed = bytearray(b"".join(gzip.compress(member, mtime=0) for member in members))
    for place in draw(st.lists(st.floats(0, 0.999), max_size=1)):
        packed[int(place * len(packed))] ^= draw(st.integers(0, 255))
    return bytes(packed)


@given(body=packed_forms(), places=CUTS)
@settings(deadline=None, max_examples=50)
def test_a_packed_form_means_the_same_however_it_is_cut(
    folder: Path, body: bytes, places: list[float]
) -> None:
    check(folder, body, places, is_packed=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(body=st.one_of(forms(), packed_forms()), places=CUTS, is_packed=st.booleans())
@settings(
    deadline=None, max_examples=_MANY, suppress_health_check=[HealthCheck.too_slow], database=None
)
def test_thousands_of_forms_mean_the_same_however_they_are_cut(
    folder: Path, body: bytes, places: list[float], is_packed: bool
) -> None:
    check(folder, body, places, is_packed=is_packed)


@given(content=CONTENT.filter(lambda content: len(content) <= LIMIT), places=CUTS)
@settings(deadline=None)
def test_the_bytes_of_a_file_arrive_as_they_are(
    folder: Path, content: bytes, places: list[float]
) -> None:
    boundary = next(f"q{n}" for n in range(1000) if f"\r\n--q{n}".encode() not in content)
    lead = b"--" + boundary.encode()
    body = b"\r\n".join([lead, FILE + content, lead, PURPOSE, lead + b"--", b""])

    async def receive_it() -> bytes:
        form = Form(file_part="file", fields=("purpose",), limit=lambda _: LIMIT)
        content_type = f"multipart/form-data; boundary={boundary}"
        async with Blobs(folder).writing("file-1") as writer:
            await form.receive(Incoming(content_type, 0, stream(cut(body, places))), writer)
            writer.seal()
            return (folder / "file-1.unfinished").read_bytes()

    assert asyncio.run(receive_it()) == content


def head_of_file() -> bytes:
    return b"--b\r\n" + FILE


@pytest.mark.parametrize(
    ("head", "again", "status"),
    [
        pytest.param(lambda: head_of_file(), b"\r\n--" * 16_000, 413, id="almost boundaries"),
        pytest.param(lambda: head_of_file(), b"\r" * 64_000, 413, id="returns"),
        pytest.param(
            lambda: head_of_file() + b"\r\n--b--\r\n", b"x" * 64_000, 413, id="after the end"
        ),
        pytest.param(lambda: b"--b\r\nx: ", b"y" * 64_000, 400, id="a header"),
        pytest.param(lambda: b"--b\r\n", b"x: y\r\n" * 10_000, 400, id="headers"),
        pytest.param(lambda: b"--b\r\n" + PURPOSE, b"y" * 64_000, 400, id="a field"),
        pytest.param(lambda: b"", (b"--b\r\n" + OTHER + b"\r\n") * 1000, 400, id="parts"),
        pytest.param(lambda: b"\r\n", b"\r\n" * 32_000, 413, id="before the beginning"),
    ],
)
async def test_an_endless_form_is_refused_with_flat_memory(
    folder: Path, head: Callable[[], bytes], again: bytes, status: int
) -> None:
    def endless() -> Iterator[bytes]:
        yield head()
        while True:
            yield again

    tracemalloc.start()
    try:
        answer = await receive(folder, endless(), limit=64 * MIB)
        assert isinstance(answer, Refused)
        assert answer.status == status
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


async def test_a_bomb_in_a_bomb_is_stopped_by_what_comes_out(folder: Path) -> None:
    """A nested one is bytes like any other: they are unpacked once."""
    inner = gzip.compress(bytes(64 * MIB))
    form = head_of_file() + inner * 2 + bytes(64 * MIB)
    tracemalloc.start()
    try:
        answer = await receive(folder, cut(gzip.compress(form), [0.5]), encoding="gzip")
        assert isinstance(answer, Refused)
        assert answer.status == TooLarge.status
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
