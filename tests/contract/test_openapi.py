"""What the server says of itself, held against what it does."""

import gzip
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.server import Server

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS") or 20)
"""`SCHEMATHESIS_SECONDS=300` looks longer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openapi")
    with Server(folder, settings={"log_level": "error"}) as server:
        yield server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return msgspec.json.decode(server.fetch("/openapi.json"), type=dict[str, Any])


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def test_the_documentation_needs_nothing_from_anywhere_else(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/docs") as answer:
        page, policy = answer.read().decode(), answer.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="([^"]*)"', page)

    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert len(parts) == 3
    contents = {part: server.fetch(part) for part in parts}
    assert b'url: "/openapi.json"' in contents["/docs/start.js"]
    assert b"SwaggerUIBundle" in gzip.decompress(contents["/docs/swagger-ui-bundle.js"])


def test_every_post_of_the_api_tells_its_body(document: dict[str, Any]) -> None:
    silent = {
        path
        for path, methods in document["paths"].items()
        if "post" in methods and "requestBody" not in methods["post"]
    }

    assert silent == {
        "/v1/batches/{id}/cancel",
        "/v1/batches/{id}/retry",
        "/v1/uploads/{upload_id}/cancel",
    }


def test_no_operation_promises_a_422_and_each_has_its_request_id(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert "422" not in operation["responses"]
        for response in operation["responses"].values():
            assert "x-request-id" in response["headers"]


def test_every_error_has_openais_envelope(document: dict[str, Any]) -> None:
    envelope = {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}

    for operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and operation["operationId"] != "measureFile":
                assert response["content"] == {"application/json": envelope}


def test_operations_are_called_what_openai_calls_them(document: dict[str, Any]) -> None:
    names = {operation["operationId"] for operation in operations(document)}

    assert {"createFile", "createUpload", "createBatch", "cancelBatch", "listModels"} <= names
    assert len(names) == len(list(operations(document)))


def wait_until_loaded(server: Server) -> None:
    """Until then whoever needs the model gets a 503, which is right, and told as a server error."""
    deadline = time.monotonic() + 60
    while True:
        try:
            server.fetch("/health_check")
            return
        except urllib.error.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """All its checks, links between operations included."""
    wait_until_loaded(server)
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(HERE / "schemathesis.toml")]
    command += ["run", f"{server.url}/openapi.json", "--checks", "all"]
    command += ["--max-time", str(SECONDS), "--continue-on-failure", "--no-color"]

    found = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.hooks"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert found.returncode == 0, found.stdout[-8_000:]
