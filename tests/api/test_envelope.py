"""Every error in OpenAI's shape, every answer with its id."""

import json
import re
from typing import Any

import openai
import pytest
from yarl import URL

from tests.api.conftest import LINE, Site


async def error_of(site: Site, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
    async with site.http.request(method, URL(path, encoded=True), **more) as response:
        answer = await response.json()
        assert response.content_type == "application/json"
        assert response.headers["x-request-id"]
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    return response.status, answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("GET", "/v1/files/", 404),
        ("GET", "/v1/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "/v1/files/%00%ff", 404),
        ("GET", "/v1/files/" + "x" * 50_000, 404),
        ("GET", "/v1/batches/" + "x" * 50_000, 404),
        ("DELETE", "/v1/models/plain", 405),
        ("PUT", "/v1/files", 405),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_not_there_is_an_error_like_any_other(
    site: Site, method: str, path: str, status: int
) -> None:
    found, error = await error_of(site, method, path)

    assert (found, error["type"]) == (status, "invalid_request_error")
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"endpoint": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"input_file_id": ' + b"9" * 5_000 + b"}",
        b'{"metadata": {"' + b"k" * 100_000 + b'": 1}, "input_file_id": "f"}',
    ],
    ids=lambda body: body[:20],
)
async def test_a_body_that_is_no_json_object_is_a_bad_request(site: Site, body: bytes) -> None:
    status, error = await error_of(site, "POST", "/v1/batches", data=body)

    assert (status, error["type"]) == (400, "invalid_request_error")
    assert len(error["message"]) < 500


async def test_json_is_read_whatever_its_content_type_says(site: Site) -> None:
    id = await site.upload()
    new = {"input_file_id": id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    headers = {"content-type": "application/x-www-form-urlencoded"}

    async with site.http.post("/v1/batches", data=json.dumps(new), headers=headers) as response:
        assert response.status == 200


async def test_a_body_over_the_limit_is_refused(site: Site) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await site.client.batches.create(
            input_file_id="x" * 2_000_000,
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )

    assert refused.value.status_code == 413


async def test_a_sane_request_id_is_kept(site: Site) -> None:
    headers = {"x-request-id": "my-id.1"}

    async with site.http.get("/health", headers=headers) as response:
        assert response.headers["x-request-id"] == "my-id.1"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", "größe"])
async def test_any_other_request_id_is_replaced(site: Site, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}

    async with site.http.get("/health", headers=headers) as response:
        assert re.fullmatch("req_[0-9a-f]{32}", response.headers["x-request-id"])


async def test_an_unexpected_exception_is_a_500_that_tells_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.database.write.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE batches RENAME TO lost")

    status, error = await error_of(site, "GET", "/v1/batches")

    assert (status, error["type"], error["code"]) == (500, "server_error", None)
    assert error["message"] == "The server had an error while processing your request."
    assert [record.message for record in caplog.records] == ["unexpected error"]


async def test_an_upload_that_can_not_be_recorded_leaves_nothing(site: Site) -> None:
    async with site.database.write.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE files RENAME TO lost")

    with pytest.raises(openai.InternalServerError):
        await site.client.files.create(file=LINE, purpose="batch")

    assert site.blobs_on_disk() == []


async def test_a_full_database_is_a_full_disk(site: Site) -> None:
    id = await site.upload()
    async with site.database.write() as session:
        connection = await session.connection()
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    async def create_batches() -> None:
        for _ in range(100):
            await site.client.batches.create(
                input_file_id=id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={str(n): "x" * 512 for n in range(16)},
            )

    with pytest.raises(openai.InternalServerError) as full:
        await create_batches()

    assert (full.value.status_code, full.value.code) == (507, "insufficient_storage")
    assert (await site.client.files.retrieve(id)).id == id


async def test_a_wrong_method_is_told_the_right_ones(site: Site) -> None:
    async with site.http.put("/v1/files") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, POST")
    async with site.http.patch("/v1/batches/batch_1") as response:
        assert (response.status, response.headers["allow"]) == (405, "DELETE, GET")


async def test_the_sdk_learns_the_request_id_of_answers_and_of_errors(site: Site) -> None:
    models = await site.client.models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        await site.client.files.retrieve("file-x")

    assert models._request_id
    assert missing.value.request_id
    assert missing.value.request_id != models._request_id
