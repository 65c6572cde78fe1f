"""What nginx itself answers is an error in OpenAI's shape, with an id."""

import asyncio
import http.client
import json
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from tests.nginx.conftest import CHAT, Site
from tests.nginx.process import Nginx
from tests.standin import CLOSED, HANG, Fault


def _ask(nginx: Nginx, head: str, body: bytes = b"") -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send it as it is; status, headers and error of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=10)
    connection.connect()
    connection.sock.sendall(head.encode() + b"\r\n\r\n" + body)
    answer = http.client.HTTPResponse(connection.sock)
    answer.begin()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    error = json.loads(answer.read())["error"]
    connection.close()
    return answer.status, headers, error


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        ("GET /elsewhere HTTP/1.1\r\nHost: localhost", 404, "There is nothing at this address."),
        ("GET /nginx/error HTTP/1.1\r\nHost: localhost", 404, "There is nothing at this address."),
        ("TRACE /v1/models HTTP/1.1\r\nHost: localhost", 405, "This method is not allowed here."),
        ("GET /v1/models HTTP/1.1", 400, "The request is not valid HTTP."),
        ("GET  HTTP/1.1\r\nHost: localhost", 400, "The request is not valid HTTP."),
        (f"GET /v1/{'x' * 17_000} HTTP/1.1\r\nHost: localhost", 414, "The address is too long."),
        (
            f"GET /v1/ HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 17_000}",
            431,
            "The headers are too large.",
        ),
        (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999",
            413,
            "The body is too large.",
        ),
    ],
)
def test_a_request_that_nginx_refuses_gets_an_error_of_ours(
    nobody: Nginx, head: str, status: int, message: str
) -> None:
    answered, headers, error = _ask(nobody, head)

    assert answered == status
    assert error == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["server"] == "nginx"


@pytest.mark.parametrize("path", ["/v1/models", "/elsewhere"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.2", "nginx.evil"])
async def test_a_name_that_leads_here_from_elsewhere_reaches_no_worker(
    site: Site, host: str, path: str
) -> None:
    """A page of the web may give a name of its own the address of this machine."""
    head = f"GET {path} HTTP/1.1\r\nHost: {host}"
    status, headers, error = await asyncio.to_thread(_ask, site.nginx, head)

    assert (status, error["message"]) == (421, "This server has another name.")
    assert headers["x-request-id"].startswith("req_")
    assert [standin.stats.models for standin in site.standins] == [0, 0]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]", "nginx"])
async def test_by_its_own_names_it_is_reached(site: Site, host: str) -> None:
    async with site.session.get("/v1/models", headers={"host": host}) as answer:
        assert answer.status == 200


def test_workers_that_are_all_away_are_a_503_to_wait_for(nobody: Nginx) -> None:
    """Nothing was run, so that nothing is to blame: not a 502, which blames a line of a batch."""
    for _ in range(4):  # from the second on nginx does not even try
        status, headers, error = _ask(nobody, "GET /v1/models HTTP/1.1\r\nHost: localhost")

        assert (status, headers["retry-after"]) == (503, "1")
        assert error["code"] == "server_is_overloaded"
        assert headers["x-request-id"].startswith("req_")


async def test_a_request_that_breaks_two_workers_is_a_502(site: Site) -> None:
    answer = await site.ask(f"{CLOSED}poison")

    assert answer.status == 502
    assert (await answer.json())["error"] == {
        "message": "The upstream broke off before its answer was whole.",
        "type": "server_error",
        "param": None,
        "code": "upstream_broke",
    }
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "directives", [{"proxy_read_timeout": "1s", "proxy_next_upstream_timeout": "1s"}]
)
async def test_a_worker_that_never_answers_is_a_504_and_nobody_else_is_asked(site: Site) -> None:
    answer = await site.ask(f"{HANG}hi")

    assert answer.status == 504
    assert (await answer.json())["error"]["code"] == "upstream_timed_out"
    assert sum(site.received) == 1


async def test_errors_of_a_worker_pass_as_they_are(site: Site) -> None:
    mine = '{"error": {"message": "mine"}}'

    answer = await site.ask(f"{Fault(status=400, body=mine)}hi")

    assert (answer.status, await answer.text()) == (400, mine)


def test_the_sdk_understands_them(nobody: Nginx) -> None:
    with (
        OpenAI(base_url=f"{nobody.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(APIStatusError) as caught,
    ):
        client.models.list()

    assert caught.value.status_code == 503
    assert caught.value.code == "server_is_overloaded"
    assert caught.value.request_id is not None
