"""`/v1/models`, `/health` and `/ready`: what the server knows of itself and its upstreams."""

import openai
import pytest

from tests.api.conftest import Site


async def test_every_model_of_the_upstream_is_listed(site: Site) -> None:
    models = await site.client.models.list()

    assert [model.id for model in models.data] == ["org/name:v1", "plain"]
    assert models._request_id


@pytest.mark.parametrize("id", ["org/name:v1", "plain"])
async def test_a_model_is_found_by_its_id(site: Site, id: str) -> None:
    model = await site.client.models.retrieve(id)

    assert (model.id, model.object) == (id, "model")


@pytest.mark.parametrize("id", ["org/name", "nope", "a/b/c", "x" * 50_000])
async def test_an_unknown_model_is_not_found(site: Site, id: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await site.client.models.retrieve(id)

    assert missing.value.code == "model_not_found"
    assert len(missing.value.message) < 300


async def test_without_an_upstream_the_server_is_alive_but_not_ready(site: Site) -> None:
    await site.upstream.stop()

    for path, status in (("/health", 200), ("/ready", 503), ("/v1/models", 503)):
        async with site.http.get(path) as response:
            assert response.status == status


async def test_with_store_and_upstream_the_server_is_ready(site: Site) -> None:
    async with site.http.get("/ready") as response:
        report = await response.json()

    assert (response.status, report["status"], report["degraded"]) == (200, "ready", [])
    upstreams = {"status": "ok", "models": 2, "up": 1, "down": 0}
    assert report["checks"]["upstreams"] == upstreams
    assert report["checks"]["disk"]["free_bytes"] > report["checks"]["disk"]["min_free_bytes"]


async def test_while_the_upstream_is_loading_the_server_is_not_ready(site: Site) -> None:
    site.upstream.models_status = 503

    for path in ("/ready", "/v1/models"):
        async with site.http.get(path) as response:
            assert response.status == 503


async def test_without_its_store_the_server_is_not_ready(site: Site) -> None:
    async with site.database.write.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE batches RENAME TO lost")

    async with site.http.get("/ready") as response:
        report = await response.json()

    assert (response.status, report["degraded"]) == (503, ["store"])
    assert report["error"]["message"] == "Not ready: store can't be reached."
    assert response.headers["retry-after"] == "1"
