"""A server with a key in its settings."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AuthenticationError, OpenAI

from tests.server import Server

KEY = "sk-a-key-of-some-length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    settings = {"api_key": KEY, "log_level": "debug"}
    with Server(folder, "http://127.0.0.1:9", settings=settings) as server:
        yield server


@pytest.mark.parametrize("key", ["sk-wrong", f"{KEY}x", KEY[:-1]])
def test_a_wrong_key_is_refused_on_every_route_of_the_sdk(server: Server, key: str) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    calls: list[Any] = [
        lambda: client.files.list(),
        lambda: client.files.create(file=b"{}", purpose="batch"),
        lambda: client.batches.list(),
        lambda: client.batches.cancel("batch_1"),
        lambda: client.models.list(),
        lambda: client.chat.completions.create(model="m", messages=[]),
        lambda: client.embeddings.create(model="m", input="x"),
        lambda: client.uploads.cancel("upload_1"),
    ]

    for call in calls:
        with pytest.raises(AuthenticationError) as refused:
            call()
        assert (refused.value.code, refused.value.type) == (
            "invalid_api_key",
            "invalid_request_error",
        )
        assert refused.value.request_id


def test_the_right_key_is_let_in(server: Server) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.files.list().data == []


def test_no_key_is_a_401_that_says_how_to_send_one(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/v1/files")
    with refused.value as answer:
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in json.load(answer)["error"]["message"]


def test_health_and_documentation_need_no_key_and_the_latter_names_the_scheme(
    server: Server,
) -> None:
    assert server.fetch("/health")
    document = json.loads(server.fetch("/openapi.json"))
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_a_key_is_not_in_the_log_whatever_happens_to_its_request(server: Server) -> None:
    wrong = "sk-another-key-of-some-length"
    for key in (KEY, wrong):
        with (
            OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client,
            pytest.raises(APIStatusError),
        ):
            client.chat.completions.create(model="m", messages=[])

    log = server.log_tail()
    assert log
    assert KEY not in log
    assert wrong not in log


def test_the_scheme_is_not_case_sensitive(server: Server) -> None:
    request = urllib.request.Request(
        f"{server.url}/v1/files", headers={"authorization": f"bearer {KEY}"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def test_a_short_key_is_refused_and_not_told(tmp_path: Path) -> None:
    with (
        pytest.raises(Exception, match="BATCH_API_API_KEY") as refused,
        Server(tmp_path, "http://127.0.0.1:9", settings={"api_key": "short"}),
    ):
        pass
    assert "'short'" not in str(refused.value)
