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


@pytest.mark.parametrize("query", ["", "?v=", "?v=0123456789abcdef"])
async def test_only_the_right_version_of_a_file_is_kept_for_ever(site: Site, query: str) -> None:
    async with site.http.get(STYLE + query) as other:
        assert other.headers["cache-control"] == "no-cache"
        tag = other.headers["etag"]
    async with site.http.get(STYLE + query, headers={"if-none-match": tag}) as unchanged:
        assert unchanged.status == 304

    async with site.http.get(address("dashboard.css")) as right:
        assert "immutable" in right.headers["cache-control"]
