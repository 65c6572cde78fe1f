"""`/metrics` of the server: who may read it, what it says of the store, and how it counts calls."""

import asyncio
import re
from typing import Any

import pytest

from batch_api.store import batches
from batch_api.store.batches import Tally, Usage
from tests.api import keys
from tests.api.conftest import Site
from tests.monitoring.rules import timed_routes
from tests.scraping import Scrape
from tests.store.rows import add_batch, lease

_CHAT = "/v1/chat/completions"
_REQUESTS = "batch_api_http_requests_total"


async def _scrape(site: Site, key: str = "") -> Scrape:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with site.http.get("/metrics", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/plain")
        return Scrape.of(await answer.text())


async def _refusal(site: Site, key: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with site.http.get("/metrics", headers=headers) as answer:
        return answer.status, (await answer.json())["error"]["code"]


async def test_once_there_are_keys_only_the_operators_opens_it(site: Site) -> None:
    await _scrape(site)
    operators = await keys.make(site.keyring, site.settings, "default")
    others = await keys.make(site.keyring, site.settings, "research")

    assert await _refusal(site) == (401, "invalid_api_key")
    assert await _refusal(site, "sk-wrong") == (401, "invalid_api_key")
    assert await _refusal(site, others) == (403, "operator_only")
    assert (await _scrape(site, operators)).value("batch_api_upstream_up") == 1


async def test_what_there_is_to_do_is_told_as_the_store_has_it(site: Site) -> None:
    now = int(site.clock.now())
    first = await add_batch(site.database, "batch_1", lines=10, expires_at=now + 100, tenant="a")
    await add_batch(site.database, "batch_2", lines=20, expires_at=now + 1000, tenant="b")
    await add_batch(site.database, "batch_3", expires_at=now + 50)
    await lease(site.database, first, limit=4)
    async with site.database.write.begin() as session:
        await batches.tally(session, first, Tally(2, 1, Usage()))

    scrape = await _scrape(site)

    def lines(state: str) -> float:
        return scrape.value("batch_api_lines", state=state)

    assert scrape.value("batch_api_batches", status="in_progress") == 2
    assert scrape.value("batch_api_batches", status="validating") == 1
    assert scrape.value("batch_api_batches", status="cancelling") == 0
    assert [*map(lines, ("pending", "in_flight", "completed", "failed"))] == [23, 4, 2, 1]
    assert scrape.value("batch_api_deadline_margin_seconds") == 50
    assert scrape.value("batch_api_needed_lines_per_second") == pytest.approx(0.07)
    assert scrape.value("batch_api_oldest_batch_age_seconds") == now - 1


async def test_without_a_batch_there_is_no_deadline(site: Site) -> None:
    scrape = await _scrape(site)

    assert "batch_api_deadline_margin_seconds" not in scrape.names
    assert scrape.value("batch_api_oldest_batch_age_seconds") == 0
    assert scrape.value("batch_api_needed_lines_per_second") == 0


async def test_an_upstream_tells_how_it_stands(site: Site) -> None:
    before = await _scrape(site)
    asked = asyncio.create_task(site.client.chat.completions.create(model="plain", messages=[]))
    await site.upstream.arrived.wait()
    busy = await _scrape(site)
    asked.cancel()
    await site.upstream.stop()
    async with site.http.get("/ready") as answer:
        assert answer.status == 503
    down = await _scrape(site)

    (sample,) = before.all("batch_api_upstream_up")
    assert sample.labels["upstream"].startswith("http://127.0.0.1:")
    assert (sample.value, down.value("batch_api_upstream_up")) == (1, 0)
    assert busy.value("batch_api_upstream_in_flight") == 1
    assert busy.value("batch_api_upstream_limit") == 128


async def test_the_disk_and_the_database_tell_their_sizes(site: Site) -> None:
    await site.upload()
    scrape = await _scrape(site)

    assert scrape.value("batch_api_database_bytes") > 4096
    assert scrape.value("batch_api_wal_bytes") > 0
    assert scrape.value("batch_api_stored_bytes") > 0
    free = scrape.value("batch_api_disk_free_bytes")
    assert free > scrape.value("batch_api_disk_min_free_bytes") > 0
    assert scrape.value("batch_api_store_troubled") == 0


async def test_calls_are_counted_by_the_template_of_their_route(site: Site) -> None:
    for path in ("/v1/files/file-a", "/v1/files/file-b", "/v1/batches/batch_x", "/a", "/b/c?d"):
        async with site.http.get(path) as answer:
            await answer.read()
    async with site.http.patch("/v1/files") as answer:
        assert answer.status == 405

    scrape = await _scrape(site)

    assert scrape.value(_REQUESTS, method="GET", route="/v1/files/{id}", status="404") == 2
    assert scrape.value(_REQUESTS, method="GET", route="/v1/batches/{id}", status="404") == 1
    assert scrape.value(_REQUESTS, method="GET", route="other", status="404") == 2
    assert scrape.value(_REQUESTS, method="PATCH", status="405") == 1
    seconds = "batch_api_http_request_duration_seconds"
    assert scrape.value(f"{seconds}_count", route="/v1/files/{id}") == 2
    assert 0 < scrape.value(f"{seconds}_sum", route="/v1/files/{id}") < 60


async def test_no_path_id_tenant_or_key_becomes_a_label(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "default")
    await add_batch(site.database, "batch_secret", lines=1, tenant="tenant-name")
    async with site.http.get("/v1/files/file-name", headers={"authorization": f"Bearer {key}"}):
        pass

    scrape = await _scrape(site, key)

    said = repr([sample.labels for sample in scrape.samples])
    assert not [word for word in ("secret", "file-name", "tenant-name", key) if word in said]


async def test_the_first_event_of_a_stream_is_timed(site: Site) -> None:
    site.upstream.headers = {"content-type": "text/event-stream"}
    site.upstream.answer(b"data: {}\n\n", b"data: [DONE]\n\n")
    async with site.http.post(_CHAT, json={"model": "plain", "stream": True}) as answer:
        await answer.read()

    scrape = await _scrape(site)

    assert scrape.value("batch_api_http_first_event_seconds_count", route=_CHAT) == 1
    assert scrape.value(_REQUESTS, method="POST", route=_CHAT, status="200") == 1


async def test_how_long_somebody_looks_at_the_dashboard_is_no_latency(site: Site) -> None:
    async with site.http.get("/events") as events:
        await events.content.readline()
    scrape = await _scrape(site)
    while not scrape.all(_REQUESTS, route="/events"):  # until it has seen that nobody is there
        scrape = await _scrape(site)

    for name in ("request_duration", "first_event"):
        assert not scrape.all(f"batch_api_http_{name}_seconds_count", route="/events")


async def test_latencies_are_shown_of_the_api_and_not_of_pages_and_probes(site: Site) -> None:
    async with site.http.get("/openapi.json") as answer:
        described = (await answer.json())["paths"]
    probes = {"/health", "/ready", "/version", "/metrics"}
    pages = {"/", "/batches/{id}", "/activity/data", "/events", "/static/{path:path}", "other"}
    (timed,) = timed_routes()

    assert {path for path in described if not re.fullmatch(timed, path)} == probes
    assert not {path for path in pages if re.fullmatch(timed, path)}
