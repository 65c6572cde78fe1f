"""How pages and what they are made of are sent: heads, errors, caches."""

import pytest

from batch_api.dashboard.static import address
from tests.api import keys
from tests.api.conftest import Site

STYLE = "/static/dashboard.css"


@pytest.mark.parametrize("path", ["/", "/sign-in", STYLE])
async def test_whoever_asks_for_the_head_of_a_page_gets_it(site: Site, path: str) -> None:
    async with site.http.head(path, allow_redirects=False) as head:
        assert head.status in (200, 303)
        assert await head.read() == b""
    async with site.http.get(path, allow_redirects=False) as whole:
        assert whole.status == head.status
        assert whole.headers["content-length"] == head.headers["content-length"]


async def test_a_page_that_tells_an_error_has_the_headers_of_it(site: Site) -> None:
    await keys.make(site.keyring, site.settings, "a")

    async with site.http.get("/", headers={"authorization": "Bearer sk-wrong"}) as answer:
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.content_type == "text/html"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("path", ["/nope", "/batches/", "/static"])
async def test_people_get_a_page_of_what_is_not_there(site: Site, path: str) -> None:
    async with site.http.get(path, headers={"accept": BROWSER}) as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        text = await answer.text()
    assert "There is no page at this address." in text
    assert 'href="/activity"' in text
    async with site.http.head(path, headers={"accept": BROWSER}) as head:
        assert (head.status, await head.read()) == (404, b"")


async def test_who_has_not_signed_in_gets_it_without_the_way_to_the_others(site: Site) -> None:
    await keys.make(site.keyring, site.settings, "a")

    for given in ({}, {"authorization": "Bearer sk-wrong"}):
        async with site.http.get("/nope", headers={"accept": BROWSER, **given}) as answer:
            assert (answer.status, answer.content_type) == (404, "text/html")
            assert 'href="/activity"' not in await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/nope", "*/*"),
        ("GET", "/nope", "application/json"),
        ("GET", "/v1/nope", BROWSER),
        ("POST", "/nope", BROWSER),
    ],
)
async def test_programs_get_the_error_of_what_is_not_there(
    site: Site, method: str, path: str, accept: str
) -> None:
    async with site.http.request(method, path, headers={"accept": accept}) as answer:
        assert answer.status == 404
        told = await answer.json()
    assert told["error"]["message"] == f"Not Found: {method} {path}"


@pytest.mark.parametrize("query", ["", "?v=", "?v=0123456789abcdef"])
async def test_only_the_right_version_of_a_file_is_kept_for_ever(site: Site, query: str) -> None:
    async with site.http.get(STYLE + query) as other:
        assert other.headers["cache-control"] == "no-cache"
        tag = other.headers["etag"]
    async with site.http.get(STYLE + query, headers={"if-none-match": tag}) as unchanged:
        assert unchanged.status == 304

    async with site.http.get(address("dashboard.css")) as right:
        assert "immutable" in right.headers["cache-control"]
