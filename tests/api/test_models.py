"""`/v1/models`, `/health` and `/ready`: what the server knows of itself and its upstreams."""

import asyncio

import openai
import pytest

from batch_api import __version__
from batch_api.api.readiness import UpstreamCheck
from batch_api.settings import MIB
from batch_api.upstreams import Upstreams
from tests.api.conftest import Site
from tests.api.upstream import ScriptedUpstream
from tests.clock import TurnableClock


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


async def test_while_a_worker_loads_its_model_the_server_is_not_ready_and_says_why(
    site: Site,
) -> None:
    site.upstream.loading = {"org/name:v1", "plain"}

    async with site.http.get("/ready") as response:
        report = await response.json()

    assert (response.status, report["degraded"]) == (503, ["upstreams"])
    assert report["checks"]["upstreams"]["status"] == "loading"
    assert "a worker is loading" in report["error"]["message"]
    assert response.headers["retry-after"] == "1"


async def test_a_model_that_still_loads_beside_another_is_told_as_a_lack(site: Site) -> None:
    site.upstream.loading = {"plain"}

    async with site.http.get("/ready") as response:
        report = await response.json()

    assert (response.status, report["degraded"]) == (200, ["upstreams"])
    assert report["checks"]["upstreams"] == {"status": "some", "models": 1, "up": 1, "down": 0}


async def test_a_flood_of_questions_whether_it_is_ready_is_none_for_the_upstreams(
    site: Site,
) -> None:
    async def ask() -> int:
        async with site.http.get("/ready") as response:
            return response.status

    assert set(await asyncio.gather(*(ask() for _ in range(50)))) == {200}
    assert {await ask() for _ in range(5)} == {200}
    assert site.upstream.listings == 1

    site.clock.turn(2.0)
    assert await ask() == 200
    assert site.upstream.listings == 2


async def test_what_is_remembered_of_an_upstream_is_forgotten_in_a_second(site: Site) -> None:
    site.upstream.models_status = 503
    async with site.http.get("/ready") as response:
        assert response.status == 503

    site.upstream.models_status = 200
    site.clock.turn(2.0)
    async with site.http.get("/ready") as response:
        assert response.status == 200


async def test_who_leaves_takes_the_answer_from_nobody_else(site: Site) -> None:
    check = UpstreamCheck(site.app.state.parts.upstreams, site.clock)
    leaving, staying = [asyncio.create_task(check.take()) for _ in range(2)]
    await asyncio.sleep(0)

    leaving.cancel()

    assert (await staying)["status"] == "ok"
    assert leaving.cancelled()


@pytest.mark.parametrize(("mib", "is_read"), [(3, True), (5, False)])
async def test_of_a_list_of_models_at_most_4_mib_are_read(mib: int, is_read: bool) -> None:
    upstream = ScriptedUpstream(models=["x" * mib * MIB])
    upstreams = Upstreams([await upstream.start()], timeout_seconds=10)

    status = (await UpstreamCheck(upstreams, TurnableClock()).take())["status"]

    assert status == ("ok" if is_read else "away")
    await upstreams.close()
    await upstream.stop()


async def test_the_version_is_told_to_anybody_and_no_secret_with_it(site: Site) -> None:
    async with site.http.get("/version") as response:
        told = await response.json()

    assert told.keys() == {"version", "python", "api", "started_at"}
    assert (told["version"], told["api"]) == (__version__, "v1")


async def test_without_its_store_the_server_is_not_ready(site: Site) -> None:
    async with site.database.write.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE batches RENAME TO lost")

    async with site.http.get("/ready") as response:
        report = await response.json()

    assert (response.status, report["degraded"]) == (503, ["store"])
    assert report["error"]["message"] == "Not ready: the database can't be read."
    assert response.headers["retry-after"] == "1"
