"""Requests per minute, of each tenant."""

import asyncio

import pytest
from openai import RateLimitError

from batch_api.api.rates import Rates
from batch_api.errors import TooManyRequests
from batch_api.settings import Settings
from tests.api import keys
from tests.api.conftest import Site, sdk
from tests.clock import TurnableClock

LIMIT = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_requests_per_minute": LIMIT})


async def test_every_answer_tells_how_it_stands_also_errors_and_downloads(site: Site) -> None:
    id = await site.upload()

    async with site.http.get(f"/v1/files/{id}/content") as content:
        told = [content.headers[f"x-ratelimit-{name}-requests"] for name in HEADERS]
    async with site.http.get("/v1/files/file-unknown") as missing:
        left = missing.headers["x-ratelimit-remaining-requests"]

    assert told == [str(LIMIT), "1", "40s"]
    assert (missing.status, left) == (404, "0")


async def test_who_asks_too_often_is_told_when_to_come_back(site: Site) -> None:
    for _ in range(LIMIT):
        await site.client.files.list()

    with pytest.raises(RateLimitError) as refused:
        await site.client.files.list()

    assert refused.value.code == "rate_limit_exceeded"
    assert "Limit 3 / min. Please try again in 20s." in refused.value.message
    headers = refused.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("20", "20000")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    site.clock.turn(20)
    await site.client.files.list()


async def test_a_tenant_that_asks_too_often_hinders_no_other(site: Site) -> None:
    one, other = [await keys.make(site.keyring, site.settings, name) for name in ("a", "b")]
    async with sdk(site.url, one) as busy, sdk(site.url, other) as calm:
        for _ in range(LIMIT):
            await busy.files.list()
        with pytest.raises(RateLimitError):
            await busy.files.list()
        await calm.files.list()


async def test_who_is_not_let_in_costs_nobody_anything(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    for _ in range(LIMIT + 1):
        async with site.http.get("/v1/files") as refused:
            assert refused.status == 401

    async with sdk(site.url, key) as client:
        await client.files.list()


async def test_health_and_readiness_are_not_counted(site: Site) -> None:
    for _ in range(LIMIT + 1):
        async with site.http.get("/ready") as answer:
            assert answer.status == 200


async def test_of_requests_at_once_as_many_pass_as_may(site: Site) -> None:
    answers = await asyncio.gather(
        *(site.client.files.list() for _ in range(3 * LIMIT)), return_exceptions=True
    )

    assert sum(isinstance(answer, RateLimitError) for answer in answers) == 2 * LIMIT


def test_a_bucket_fills_evenly_and_never_beyond_its_limit() -> None:
    clock = TurnableClock()
    rates = Rates(60, clock)
    clock.turn(3600)

    for _ in range(60):
        rates.take("a")
    with pytest.raises(TooManyRequests):
        rates.take("a")
    clock.turn(2.5)
    assert [rates.take("a")["x-ratelimit-remaining-requests"] for _ in range(2)] == ["1", "0"]
    with pytest.raises(TooManyRequests, match="in 500ms"):
        rates.take("a")


def test_long_times_are_told_in_minutes() -> None:
    rates = Rates(1, TurnableClock())

    assert rates.take("a")["x-ratelimit-reset-requests"] == "1m0s"


HEADERS = ("limit", "remaining", "reset")
