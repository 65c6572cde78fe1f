"""Ranges of a file's content."""

import aiohttp
import pytest

from tests.api.conftest import Site

CONTENT = b'{"a": "0123456789"}\n'


async def fetch(site: Site, wanted: str) -> tuple[aiohttp.ClientResponse, bytes]:
    id = await site.upload(CONTENT)
    async with site.http.get(f"/v1/files/{id}/content", headers={"range": wanted}) as response:
        return response, await response.read()


@pytest.mark.parametrize(
    ("wanted", "part", "where"),
    [
        ("bytes=0-3", CONTENT[:4], "bytes 0-3/20"),
        ("bytes=5-", CONTENT[5:], "bytes 5-19/20"),
        ("bytes=-4", CONTENT[-4:], "bytes 16-19/20"),
        ("bytes=-400", CONTENT, "bytes 0-19/20"),
        ("bytes=18-400", CONTENT[18:], "bytes 18-19/20"),
    ],
)
async def test_one_range_is_served_alone(site: Site, wanted: str, part: bytes, where: str) -> None:
    response, body = await fetch(site, wanted)

    assert (response.status, body) == (206, part)
    assert response.headers["content-range"] == where


@pytest.mark.parametrize("wanted", ["bytes=20-", "bytes=400-500", "bytes=-0"])
async def test_a_range_beyond_the_end_is_not_satisfiable(site: Site, wanted: str) -> None:
    response, body = await fetch(site, wanted)

    assert response.status == 416
    assert response.headers["content-range"] == "bytes */20"
    assert b'"invalid_request_error"' in body


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=" + ",".join(f"{n}-{n}" for n in range(500)),
        "bytes=0-1,3-4",
        "bytes=3-1",
        "bytes=-",
        "bytes=a-b",
        "bytes=" + "9" * 5_000 + "-",
        "lines=1-2",
        "",
    ],
)
async def test_anything_but_one_range_gets_the_whole(site: Site, wanted: str) -> None:
    response, body = await fetch(site, wanted)

    assert (response.status, body) == (200, CONTENT)


async def test_a_head_request_tells_the_length_and_sends_no_content(site: Site) -> None:
    id = await site.upload(CONTENT)

    async with site.http.head(f"/v1/files/{id}/content") as response:
        body = await response.read()

    assert (response.status, body) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))


async def test_content_is_bytes_whatever_the_client_accepts(site: Site) -> None:
    id = await site.upload(CONTENT)

    async with site.http.get(
        f"/v1/files/{id}/content", headers={"accept": "application/xml"}
    ) as response:
        assert await response.read() == CONTENT

    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"in.jsonl\"; filename*=UTF-8''in.jsonl"
    )


async def test_a_range_of_another_version_of_the_file_gets_the_whole(site: Site) -> None:
    id = await site.upload(CONTENT)
    async with site.http.head(f"/v1/files/{id}/content") as response:
        etag = response.headers["etag"]

    for given, status in ((etag, 206), ('"other"', 200)):
        headers = {"range": "bytes=0-3", "if-range": given}
        async with site.http.get(f"/v1/files/{id}/content", headers=headers) as response:
            assert response.status == status
            assert await response.read() == (CONTENT[:4] if status == 206 else CONTENT)
