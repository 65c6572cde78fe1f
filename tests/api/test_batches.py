"""`/v1/batches`, through the SDK; nothing runs them here."""

from typing import Any

import pytest
from openai import BadRequestError, ConflictError, NotFoundError
from openai.types import Batch
from sqlalchemy import update

from batch_api.lifecycle import BatchStatus
from batch_api.settings import Settings
from batch_api.store import batches
from batch_api.store.tables import BatchRow
from tests.api.conftest import START, Site

VALID = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def create(site: Site, **more: Any) -> Batch:
    return await site.client.batches.create(
        input_file_id=await site.upload(),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        **more,
    )


async def post(site: Site, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with site.http.post("/v1/batches", json=body) as response:
        return response.status, await response.json()


async def set_row(site: Site, id: str, **values: Any) -> None:
    """Stands for the scheduler, which moves batches."""
    async with site.database.write.begin() as session:
        await session.execute(update(BatchRow).where(BatchRow.id == id).values(**values))


async def test_a_new_batch_is_validating_and_the_scheduler_is_woken(site: Site) -> None:
    batch = await create(site, metadata={"k": "v"})

    assert batch.id.startswith("batch_")
    assert (batch.object, batch.status, batch.errors) == ("batch", "validating", None)
    assert (batch.created_at, batch.expires_at) == (START, START + 86_400)
    assert batch.metadata == {"k": "v"}
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert batch.usage is not None
    assert batch.usage.total_tokens == 0
    assert site.rings == [START]
    assert await site.client.batches.retrieve(batch.id) == batch


async def test_a_batch_has_every_field_of_openais(site: Site) -> None:
    batch = await create(site)

    missing = {name for name in Batch.model_fields if name not in batch.model_fields_set}
    assert missing == set()


RARE = ["/v1/moderations", "/v1/images/generations", "/v1/images/edits", "/v1/videos"]


@pytest.mark.parametrize("endpoint", ["/v1/completions", "/v1/embeddings", "/v1/responses"])
async def test_a_batch_for_any_text_endpoint_is_accepted_without_asking(
    site: Site, endpoint: str
) -> None:
    status, batch = await post(
        site, {**VALID, "input_file_id": await site.upload(), "endpoint": endpoint}
    )

    assert (status, batch["endpoint"]) == (200, endpoint)
    assert site.upstream.received == []


@pytest.mark.parametrize("endpoint", RARE)
async def test_a_batch_for_a_rare_endpoint_is_accepted_if_the_upstream_has_it(
    site: Site, endpoint: str
) -> None:
    site.upstream.status = 400
    site.upstream.answer(b'{"error": {"message": "Missing required parameter: input."}}')
    new = {**VALID, "input_file_id": await site.upload(), "endpoint": endpoint}

    assert (await post(site, new))[0] == 200
    assert (await post(site, new))[0] == 200

    (asked,) = site.upstream.received
    assert (asked.line, asked.body) == (f"POST {endpoint} HTTP/1.1", b"{}")


@pytest.mark.parametrize("absent", [404, 405])
async def test_a_batch_for_a_route_that_no_upstream_has_is_refused(site: Site, absent: int) -> None:
    site.upstream.status = absent
    site.upstream.answer(b"{}")
    new = {**VALID, "input_file_id": await site.upload(), "endpoint": "/v1/moderations"}

    status, answer = await post(site, new)
    site.upstream.status = 400
    believed, _ = await post(site, new)
    site.clock.steady += 60
    asked_again, _ = await post(site, new)

    assert (status, answer["error"]["param"]) == (400, "endpoint")
    assert answer["error"]["code"] == "unsupported_value"
    assert "'/v1/moderations'" in answer["error"]["message"]
    assert (believed, asked_again) == (400, 200)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_batch_for_a_rare_endpoint_waits_for_an_upstream_that_can_be_asked(
    site: Site, is_there: bool
) -> None:
    id = await site.upload()
    site.upstream.status = 503
    site.upstream.answer(b"{}")
    if not is_there:
        await site.upstream.stop()

    status, answer = await post(site, {**VALID, "input_file_id": id, "endpoint": "/v1/moderations"})

    assert (status, answer["error"]["code"]) == (503, "server_is_overloaded")


async def test_an_explicit_null_is_no_value(site: Site) -> None:
    status, batch = await post(
        site,
        {
            **VALID,
            "input_file_id": await site.upload(),
            "metadata": None,
            "output_expires_after": None,
            "unknown": 1,
        },
    )

    assert status == 200
    assert batch["metadata"] is None


@pytest.mark.parametrize("name", ["input_file_id", "endpoint", "completion_window"])
@pytest.mark.parametrize("is_null", [False, True])
async def test_a_missing_parameter_is_named(site: Site, name: str, is_null: bool) -> None:
    body: dict[str, Any] = {**VALID, "input_file_id": "file-1"}
    body |= {name: None}
    if not is_null:
        del body[name]

    status, answer = await post(site, body)

    assert status == 400
    assert answer["error"] == {
        "message": f"Missing required parameter: '{name}'.",
        "type": "invalid_request_error",
        "param": name,
        "code": "missing_required_parameter",
    }


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"endpoint": "/v1/nope"}, "endpoint", "invalid_value"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value"),
        ({"input_file_id": 5}, "input_file_id", "invalid_type"),
        ({"metadata": {"a": ["x"]}}, "metadata.a", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {"a": None}}, "metadata.a", "invalid_type"),
        ({"metadata": "a"}, "metadata", "invalid_type"),
        (
            {"metadata": {str(n): "" for n in range(17)}},
            "metadata",
            "object_above_max_properties",
        ),
        ({"metadata": {"k" * 65: ""}}, f"metadata.{'k' * 65}", "string_above_max_length"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3599}},
            "output_expires_after.seconds",
            "integer_below_min_value",
        ),
        (
            {"output_expires_after": {"anchor": "now", "seconds": 3600}},
            "output_expires_after.anchor",
            "invalid_value",
        ),
        (
            {"output_expires_after": {"seconds": 3600}},
            "output_expires_after.anchor",
            "missing_required_parameter",
        ),
    ],
)
async def test_a_wrong_parameter_is_named(
    site: Site, wrong: dict[str, Any], param: str, code: str
) -> None:
    status, answer = await post(site, {**VALID, "input_file_id": "file-1", **wrong})

    assert status == 400
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code)
    assert site.rings == []


async def test_metadata_at_its_limits_is_accepted(site: Site) -> None:
    metadata = {f"{n:064}": "ü" * 512 for n in range(16)}

    assert (await create(site, metadata=metadata)).metadata == metadata


async def test_an_unsupported_endpoint_is_answered_with_the_supported_ones(site: Site) -> None:
    with pytest.raises(BadRequestError, match="'/v1/chat/completions'"):
        await site.client.batches.create(
            input_file_id="file-1",
            endpoint="/v1/nope",  # type: ignore[arg-type]
            completion_window="24h",
        )


async def test_an_unknown_input_file_is_not_found(site: Site) -> None:
    with pytest.raises(NotFoundError) as missing:
        await site.client.batches.create(
            input_file_id="file-missing",
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )

    assert missing.value.param == "input_file_id"
    assert missing.value.message.endswith("No such File object: file-missing")


async def test_an_input_file_of_another_purpose_is_refused(site: Site) -> None:
    file = await site.client.files.create(file=b"notes", purpose="user_data")

    with pytest.raises(BadRequestError) as refused:
        await site.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    assert (refused.value.param, refused.value.code) == ("input_file_id", "invalid_value")


async def test_an_expired_input_file_is_not_found(site: Site) -> None:
    id = await site.upload()
    site.clock.wall += 2_592_000

    status, answer = await post(site, {**VALID, "input_file_id": id})

    assert (status, answer["error"]["param"]) == (404, "input_file_id")


async def test_the_expiry_of_the_output_is_kept_for_the_time_when_it_is_written(
    site: Site,
) -> None:
    batch = await create(site, output_expires_after={"anchor": "created_at", "seconds": 3600})

    async with site.database.read() as session:
        row = await batches.get(session, batch.id)
    assert row is not None
    assert row.output_expires_after_seconds == 3600


async def test_an_unknown_batch_is_not_found(site: Site) -> None:
    for call in (site.client.batches.retrieve, site.client.batches.cancel):
        with pytest.raises(NotFoundError) as missing:
            await call("batch_x")

        assert missing.value.code == "batch_not_found"
        assert "batch_x" in missing.value.message


async def test_a_list_is_walked_newest_first(site: Site) -> None:
    ids = [(await create(site)).id for _ in range(5)]

    first = await site.client.batches.list(limit=2)
    pages = [page async for page in first.iter_pages()]

    assert [[batch.id for batch in page.data] for page in pages] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
    ]
    assert pages[-1].has_more is False


async def test_a_list_holds_still_while_batches_are_added(site: Site) -> None:
    ids = [(await create(site)).id for _ in range(3)]
    first = await site.client.batches.list(limit=2)
    await create(site)

    second = await first.get_next_page()

    assert [batch.id for batch in second.data] == [ids[0]]


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=-1", "limit", "integer_below_min_value"),
        ("limit=abc", "limit", "invalid_type"),
        ("after=batch_missing", "after", "invalid_value"),
    ],
)
async def test_a_list_refuses_a_query_that_it_can_not_follow(
    site: Site, query: str, param: str, code: str
) -> None:
    async with site.http.get(f"/v1/batches?{query}") as response:
        error = (await response.json())["error"]

    assert response.status == 400
    assert (error["param"], error["code"]) == (param, code)


async def test_a_list_of_no_batches_is_an_empty_page(site: Site) -> None:
    await create(site)

    async with site.http.get("/v1/batches?limit=0") as response:
        listing = await response.json()

    assert (response.status, listing["data"], listing["has_more"]) == (200, [], False)


async def test_a_cancelled_batch_is_cancelling_first(site: Site) -> None:
    id = (await create(site)).id
    site.clock.wall += 5

    batch = await site.client.batches.cancel(id)

    assert (batch.status, batch.cancelling_at) == ("cancelling", START + 5)
    assert site.rings == [START, START + 5]


async def test_a_cancel_needs_no_body(site: Site) -> None:
    id = (await create(site)).id

    async with site.http.post(f"/v1/batches/{id}/cancel", data=b"") as response:
        assert (response.status, (await response.json())["status"]) == (200, "cancelling")


async def test_a_second_cancel_changes_nothing(site: Site) -> None:
    id = (await create(site)).id
    first = await site.client.batches.cancel(id)
    site.clock.wall += 5

    assert await site.client.batches.cancel(id) == first
    await set_row(site, id, status=BatchStatus.CANCELLED, cancelled_at=START, total=0)
    cancelled = await site.client.batches.cancel(id)

    assert (cancelled.status, cancelled.cancelled_at) == ("cancelled", START)


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
async def test_a_batch_that_is_over_can_not_be_cancelled_nor_is_it_tried_again(
    site: Site, status: str
) -> None:
    id = (await create(site)).id
    await set_row(site, id, status=status, **{f"{status}_at": START})
    site.rings.clear()

    with pytest.raises(ConflictError) as refused:
        await site.client.with_options(max_retries=2).batches.cancel(id)

    assert refused.value.message.endswith(f"Cannot cancel a batch with status '{status}'.")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert site.rings == []


async def test_the_files_of_a_batch_are_shown_when_it_is_final(site: Site) -> None:
    id = (await create(site)).id
    await set_row(site, id, status="finalizing", total=3, completed=2, failed=1)
    running = await site.client.batches.retrieve(id)
    await set_row(site, id, status="completed", completed_at=START)
    final = await site.client.batches.retrieve(id)

    assert (running.output_file_id, running.error_file_id) == (None, None)
    assert final.output_file_id
    assert final.error_file_id
    assert final.request_counts is not None
    assert final.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}


@pytest.mark.parametrize(
    ("status", "counts", "has_output", "has_errors"),
    [
        ("completed", {"total": 2, "completed": 2, "failed": 0}, True, False),
        ("completed", {"total": 2, "completed": 0, "failed": 2}, False, True),
        ("cancelled", {"total": 2, "completed": 1, "failed": 0}, True, True),
        ("cancelled", {"total": 0, "completed": 0, "failed": 0}, False, False),
        ("expired", {"total": 2, "completed": 0, "failed": 0}, False, True),
        ("failed", {"total": 2, "completed": 0, "failed": 0}, False, False),
    ],
)
async def test_only_a_file_with_lines_in_it_is_shown(
    site: Site, status: str, counts: dict[str, int], has_output: bool, has_errors: bool
) -> None:
    id = (await create(site)).id
    await set_row(site, id, status=status, **{f"{status}_at": START}, **counts)

    batch = await site.client.batches.retrieve(id)

    assert (batch.output_file_id is not None) == has_output
    assert (batch.error_file_id is not None) == has_errors


async def test_usage_is_added_up_while_the_batch_runs(site: Site) -> None:
    id = (await create(site)).id
    await set_row(
        site,
        id,
        status="in_progress",
        model="local",
        input_tokens=900,
        cached_tokens=128,
        output_tokens=300,
        reasoning_tokens=7,
    )

    batch = await site.client.batches.retrieve(id)

    assert batch.model == "local"
    assert batch.usage is not None
    assert batch.usage.to_dict() == {
        "input_tokens": 900,
        "input_tokens_details": {"cached_tokens": 128},
        "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 7},
        "total_tokens": 1200,
    }


async def test_a_failed_batch_lists_what_is_wrong_with_its_input(site: Site) -> None:
    id = (await create(site)).id
    problem = {"code": "invalid_url", "message": "No.", "param": "url", "line": 3}
    await set_row(site, id, status="failed", failed_at=START, errors=[problem])

    batch = await site.client.batches.retrieve(id)

    assert batch.errors is not None
    assert batch.errors.to_dict() == {"object": "list", "data": [problem]}


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
async def test_a_batch_that_is_over_can_be_deleted_and_its_files_stay(
    site: Site, status: str
) -> None:
    batch = await create(site)
    await set_row(site, batch.id, status=status, **{f"{status}_at": START})

    async with site.http.delete(f"/v1/batches/{batch.id}") as response:
        deleted = await response.json()
    async with site.http.delete(f"/v1/batches/{batch.id}") as response:
        assert response.status == 404

    assert deleted == {"id": batch.id, "object": "batch", "deleted": True}
    with pytest.raises(NotFoundError):
        await site.client.batches.retrieve(batch.id)
    assert (await site.client.batches.list()).data == []
    assert (await site.client.files.retrieve(batch.input_file_id)).id == batch.input_file_id


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
async def test_a_batch_that_is_not_over_can_not_be_deleted(site: Site, status: str) -> None:
    id = (await create(site)).id
    await set_row(site, id, status=status)

    async with site.http.delete(f"/v1/batches/{id}") as response:
        error = (await response.json())["error"]

    assert (response.status, response.headers["x-should-retry"]) == (409, "false")
    assert error["message"] == f"Cannot delete a batch with status '{status}'."
    assert (await site.client.batches.retrieve(id)).status == status


class TestWithOtherWindows:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"completion_windows": ("1h", "7d")})

    @pytest.mark.parametrize(("window", "seconds"), [("1h", 3600), ("7d", 604_800)])
    async def test_a_window_that_the_settings_allow_sets_the_deadline(
        self, site: Site, window: str, seconds: int
    ) -> None:
        new = {**VALID, "input_file_id": await site.upload(), "completion_window": window}

        status, batch = await post(site, new)

        assert (status, batch["completion_window"]) == (200, window)
        assert batch["expires_at"] == batch["created_at"] + seconds

    async def test_any_other_window_is_answered_with_those_that_are_allowed(
        self, site: Site
    ) -> None:
        status, answer = await post(site, {**VALID, "input_file_id": "file-1"})

        assert (status, answer["error"]["param"]) == (400, "completion_window")
        assert "'1h', '7d'" in answer["error"]["message"]
