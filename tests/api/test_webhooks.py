"""`webhook_url` of a new batch: only to the hosts that the operator names."""

from typing import Any

import pytest
from openai import BadRequestError
from openai.types import Batch

from batch_api.lifecycle import BatchStatus, DeliveryState
from batch_api.settings import Settings
from batch_api.store import batches, deliveries
from batch_api.store.deliveries import Attempt
from tests.api import keys
from tests.api.conftest import START, Site
from tests.store import rows

URL = "https://Hooks.example.com/batches?token=1"
ALL = "https://all.example.com/hook"


@pytest.fixture
def settings(settings: Settings, hosts: tuple[str, ...]) -> Settings:
    return settings.model_copy(update={"webhook_hosts": hosts})


@pytest.fixture
def hosts() -> tuple[str, ...]:
    return ("hooks.example.com", "[::1]:9000")


async def create(site: Site, input_id: str, url: Any, key: str = "") -> Batch:
    return await site.client.batches.create(
        input_file_id=input_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"webhook_url": url},
        extra_headers={"Idempotency-Key": key} if key else {},
    )


@pytest.mark.parametrize("url", [URL, "http://[::1]:9000", f"{URL}{'x' * 2000}", None])
async def test_a_batch_may_name_a_url_on_a_host_that_is_allowed(
    site: Site, url: str | None
) -> None:
    batch = await create(site, await site.upload(), url)

    assert (await rows.batch(site.database, 1)).webhook_url == url
    assert batch.status == "validating"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.org/",
        "https://hooks.example.com:8443/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:5000/v1/batches",
        "http://[::1]/",
    ],
)
async def test_any_other_host_is_refused_and_the_setting_named(site: Site, url: str) -> None:
    with pytest.raises(BadRequestError, match="BATCH_API_WEBHOOK_HOSTS") as refused:
        await create(site, await site.upload(), url)

    assert refused.value.param == "webhook_url"
    assert refused.value.code == "webhook_host_not_allowed"


@pytest.mark.parametrize("hosts", [()])
async def test_without_hosts_in_the_settings_every_url_is_refused(site: Site) -> None:
    with pytest.raises(BadRequestError, match="BATCH_API_WEBHOOK_HOSTS"):
        await create(site, await site.upload(), URL)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "https://",
        "https:///hook",
        "https://user:password@hooks.example.com/",
        "https://evil.org@hooks.example.com/",
        "https://hooks.example.com@evil.org/",
        "https://evil.org\\@hooks.example.com/",
        "https://hooks.example.com\\.evil.org/",
        "https://hooks.example.com#@evil.org/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nx-injected: 1",
        "https://hooks.example.com/\n",
        " https://hooks.example.com/",
        "https://hooks.example.com:/",
        "https://hooks.example.com:123456/",
        "https://hooks.exämple.com/",
        "https://hooks\u3002example.com/",
        f"https://hooks.example.com/{'x' * 2048}",
        7,
        ["https://hooks.example.com/"],
    ],
)
async def test_what_is_no_plain_url_is_refused(site: Site, url: Any) -> None:
    with pytest.raises(BadRequestError) as refused:
        await create(site, await site.upload(), url)

    assert refused.value.param == "webhook_url"
    assert (await site.client.batches.list()).data == []


async def test_another_url_under_the_same_key_is_another_request(site: Site) -> None:
    input_id = await site.upload()
    first = await create(site, input_id, URL, key="k")

    assert (await create(site, input_id, URL, key="k")).id == first.id
    for other in (f"{URL}2", None):
        with pytest.raises(BadRequestError) as refused:
            await create(site, input_id, other, key="k")
        assert refused.value.code == "idempotency_key_reused"


async def test_a_retry_tells_the_same_receiver(site: Site) -> None:
    input_id = await site.upload()
    number = await rows.add_batch(
        site.database, lines=1, input_file_id=input_id, webhook_url="https://a.example.com/"
    )
    async with site.database.write.begin() as session:
        await batches.cancel(session, "batch_1", now=START)
        left, final = BatchStatus.CANCELLING, BatchStatus.CANCELLED
        await batches.finish(session, number, left, final, now=START, webhook_urls=())

    await site.client.post("/batches/batch_1/retry", cast_to=Batch)

    retried = await rows.batch(site.database, number + 1)
    assert retried.webhook_url == "https://a.example.com/"


async def webhooks(site: Site, id: str, key: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}"}
    async with site.http.get(f"/v1/batches/{id}/webhooks", headers=headers) as answer:
        assert answer.status == 200
        found: list[dict[str, Any]] = (await answer.json())["data"]
        return found


async def test_of_a_batch_that_has_ended_one_reads_who_was_told_and_who_was_not(
    site: Site,
) -> None:
    key = await keys.make(site.keyring, site.settings, "default")
    number = await rows.add_batch(site.database, webhook_url=URL)
    assert await webhooks(site, "batch_1", key) == []
    async with site.database.write.begin() as session:
        await batches.fail(session, number, errors=[], now=START, webhook_urls=[ALL])
        failed = Attempt(1, DeliveryState.PENDING, "answers 500", START + 20.5)
        delivered = Attempt(2, DeliveryState.DELIVERED)
        await deliveries.record(session, [failed, delivered], now=START + 1)

    assert await webhooks(site, "batch_1", key) == [
        {
            "object": "batch.webhook",
            "receiver": "https://all.example.com",
            "state": "pending",
            "attempts": 1,
            "failure": "answers 500",
            "next_at": START + 21,
            "over_at": None,
        },
        {
            "object": "batch.webhook",
            "receiver": "https://hooks.example.com",
            "state": "delivered",
            "attempts": 1,
            "failure": None,
            "next_at": None,
            "over_at": START + 1,
        },
    ]


async def test_the_operator_s_receivers_are_nobody_else_s_to_see(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    number = await rows.add_batch(site.database, tenant="a", webhook_url=URL)
    async with site.database.write.begin() as session:
        await batches.fail(session, number, errors=[], now=START, webhook_urls=[ALL])

    (own,) = await webhooks(site, "batch_1", key)
    assert own["receiver"] == "https://hooks.example.com"
    headers = {"authorization": f"Bearer {key}"}
    async with site.http.get("/batches/batch_1", headers=headers) as answer:
        page = await answer.text()
    assert "hooks.example.com" in page
    assert "all.example.com" not in page
    assert "token=1" not in page
