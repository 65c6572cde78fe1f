"""The ids that clients see."""

import re
from typing import Any
from urllib.parse import unquote

import pytest
from yarl import URL

from batch_api.schemas.ids import batch_id, file_id, line_id, request_id
from tests.api.conftest import Site


def test_ids_look_like_openais() -> None:
    assert re.fullmatch("file-[0-9A-Za-z]{22}", file_id())
    assert re.fullmatch("batch_[0-9a-f]{32}", batch_id())
    assert re.fullmatch("req_[0-9a-f]{32}", request_id())
    assert re.fullmatch("batch_req_[0-9a-f]{32}", line_id(batch_id(), 1))


def test_a_line_has_the_same_id_each_time_and_no_other_line_has_it() -> None:
    batches = [batch_id() for _ in range(100)]
    ids = [line_id(batch, line) for batch in batches for line in range(100)]

    assert len(set(ids)) == len(ids)
    assert ids == [line_id(batch, line) for batch in batches for line in range(100)]


_ODD_IDS = [
    "file-missing",
    "%00",
    "%ff",
    "%0d%0aset-cookie:a",
    "'%20OR%201=1--",
    "x" * 50_000,
]
_ROUTES = [
    ("GET", "/v1/files/{}"),
    ("DELETE", "/v1/files/{}"),
    ("GET", "/v1/files/{}/content"),
    ("GET", "/v1/batches/{}"),
    ("DELETE", "/v1/batches/{}"),
    ("POST", "/v1/batches/{}/cancel"),
    ("POST", "/v1/uploads/{}/parts"),
    ("POST", "/v1/uploads/{}/complete"),
    ("POST", "/v1/uploads/{}/cancel"),
]


@pytest.mark.parametrize(("method", "path"), _ROUTES, ids=lambda it: it)
async def test_an_id_that_can_not_be_is_not_found_in_the_same_words(
    site: Site, method: str, path: str
) -> None:
    bodies = set()
    for id in _ODD_IDS:
        error = await not_found(site, method, path.format(id))
        shown = unquote(id, errors="replace")[:200]
        assert shown in error["message"]
        bodies.add((error["message"].replace(shown, "ID"), error["param"], error["code"]))

    assert len(bodies) == 1


@pytest.mark.parametrize("id", ["%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fbatch-api.db", "%2f"])
@pytest.mark.parametrize(("method", "path"), _ROUTES, ids=lambda it: it)
async def test_an_id_that_looks_like_a_path_leads_nowhere(
    site: Site, method: str, path: str, id: str
) -> None:
    error = await not_found(site, method, path.format(id))

    assert error["type"] == "invalid_request_error"


async def not_found(site: Site, method: str, path: str) -> dict[str, Any]:
    """The error."""
    url = URL(path, encoded=True)
    async with site.http.request(method, url, data=b'{"part_ids": ["part_1"]}') as response:
        assert response.status == 404
        assert "set-cookie" not in response.headers
        return dict((await response.json())["error"])
