"""What workers are told of a client, and what is written down."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.nginx.process import Nginx

CHAT = "/v1/chat/completions"


@pytest.fixture
async def mirror() -> AsyncIterator[str]:
    """The address of a worker that answers with the headers of a request."""

    async def tell(request: web.Request) -> web.Response:
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    app = web.Application()
    app.router.add_post(CHAT, tell)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}"
    await runner.cleanup()


async def _headers_at_worker(nginx: Nginx, **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(nginx.url) as session,
        session.post(f"{CHAT}?secret=query", data=b"a secret prompt", headers=named) as answer,
    ):
        seen: dict[str, str] = await answer.json()
        return seen


async def test_the_address_of_a_client_is_not_believed_from_a_header(mirror: str) -> None:
    with Nginx("workers.conf", {"worker-0:8000": mirror}) as nginx:
        seen = await _headers_at_worker(nginx, x_forwarded_for="6.6.6.6")

        assert seen["x-forwarded-for"] == "127.0.0.1"
        assert [line["client"] for line in nginx.requests(at_least=1)] == ["127.0.0.1"]


@pytest.mark.parametrize("given", ["req_mine", "x" * 128])
async def test_a_request_keeps_its_id(mirror: str, given: str) -> None:
    with Nginx("workers.conf", {"worker-0:8000": mirror}) as nginx:
        seen = await _headers_at_worker(nginx, x_request_id=given, x_batch_api_priority="batch")

        assert seen["x-request-id"] == given
        assert seen["x-batch-api-priority"] == "batch"
        assert [line["request_id"] for line in nginx.requests(at_least=1)] == [given]


@pytest.mark.parametrize("given", ["", "x" * 129, "with a blank"])
async def test_an_odd_id_is_replaced(mirror: str, given: str) -> None:
    with Nginx("workers.conf", {"worker-0:8000": mirror}) as nginx:
        seen = await _headers_at_worker(nginx, x_request_id=given)

        assert seen["x-request-id"].startswith("req_")
        assert len(seen["x-request-id"]) == len("req_") + 32


async def test_the_log_has_no_secrets(mirror: str) -> None:
    with Nginx("workers.conf", {"worker-0:8000": mirror}) as nginx:
        await _headers_at_worker(nginx, authorization="Bearer sk-secret")

        (line,) = nginx.requests(at_least=1)
        assert (line["path"], line["status"], line["upstream"]) == (CHAT, 200, mirror)
        assert "secret" not in nginx.log_tail()
