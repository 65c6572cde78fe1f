"""What a server lets web pages do, in a process of its own."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.server import Server

PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Which pages of one origin may use."""
    folder = tmp_path_factory.mktemp("web")
    settings = {"allowed_origins": json.dumps([PAGE]), "allowed_hosts": '["Batch.Example.com"]'}
    with Server(folder, "http://127.0.0.1:9", settings=settings) as server:
        yield server


@dataclass(frozen=True)
class Said:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> Any:
        return json.loads(self.body)["error"]["code"]


def ask(server: Server, method: str, path: str, **headers: str) -> Said:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Said(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Said(refused.code, dict(refused.headers), refused.read())


def preflight(server: Server, origin: str) -> Said:
    wishes = {"method": "DELETE", "headers": "authorization,x-stainless-os"}
    return ask(
        server,
        "OPTIONS",
        "/v1/files/file-1",
        origin=origin,
        **{f"access-control-request-{what}": wish for what, wish in wishes.items()},
    )


def test_an_allowed_page_may_send_its_key_and_read_the_answer(server: Server) -> None:
    allowed = preflight(server, PAGE)
    answer = ask(server, "GET", "/v1/files", origin=PAGE, authorization="Bearer sk-1")

    assert allowed.status == 200
    assert "DELETE" in allowed.headers["access-control-allow-methods"]
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert json.loads(answer.body)["data"] == []


def test_an_allowed_page_may_read_errors_too(server: Server) -> None:
    answer = ask(server, "GET", "/v1/files/file-1", origin=PAGE)

    assert (answer.status, answer.headers["access-control-allow-origin"]) == (404, PAGE)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_any_other_page_is_turned_away_whatever_it_asks(server: Server, method: str) -> None:
    answer = ask(server, method, "/v1/files", origin="https://evil.example")

    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-request-id"]
    assert preflight(server, "https://evil.example").status == 403


def test_a_name_that_was_bound_to_this_machine_anew_is_not_served(server: Server) -> None:
    rebound = ask(server, "GET", "/v1/files", host="evil.example")

    assert (rebound.status, rebound.code) == (421, "host_not_allowed")
    assert rebound.headers["x-request-id"]
    assert ask(server, "GET", "/v1/files", host="batch.example.com:443").status == 200
    assert ask(server, "GET", "/health", host="localhost").status == 200


def test_without_an_origin_cors_is_not_spoken(server: Server) -> None:
    answer = ask(server, "GET", "/v1/files")

    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "server" not in answer.headers
