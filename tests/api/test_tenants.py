"""Whatever one tenant does, another one sees nothing of it, on any route that there is."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from batch_api.scheduler.finalizer import Finalizer
from batch_api.scheduler.intake import Intake
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.wakeup import Wakeup
from batch_api.schemas.ids import batch_id, file_id, part_id, upload_id
from batch_api.store.blobs import Blobs
from batch_api.upstreams import Upstreams
from tests.api import keys
from tests.api.conftest import Site
from tests.scheduler.site import question

LINE = question("row-1")
KEY = {"idempotency-key": "the-same-for-everybody"}


@dataclass(frozen=True)
class Ids:
    """What a call may speak of."""

    file: str
    upload: str
    part: str
    batch: str
    own_upload: str
    """Of whoever calls."""

    @classmethod
    def unknown(cls, own_upload: str) -> "Ids":
        return cls(file_id(), upload_id(), part_id(), batch_id(), own_upload)


@dataclass(frozen=True)
class Call:
    path: str
    json: Any = None
    form: dict[str, str] | None = None


def _batch_of(file: str) -> dict[str, str]:
    return {
        "input_file_id": file,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }


BY_ID: dict[str, Callable[[Ids], Call]] = {
    "GET /v1/files": lambda ids: Call(f"/v1/files?after={ids.file}"),
    "GET /v1/files/{id}": lambda ids: Call(f"/v1/files/{ids.file}"),
    "GET /v1/files/{id}/content": lambda ids: Call(f"/v1/files/{ids.file}/content"),
    "HEAD /v1/files/{id}/content": lambda ids: Call(f"/v1/files/{ids.file}/content"),
    "DELETE /v1/files/{id}": lambda ids: Call(f"/v1/files/{ids.file}"),
    "POST /v1/uploads/{upload_id}/parts": lambda ids: Call(
        f"/v1/uploads/{ids.upload}/parts", form={"data": "x"}
    ),
    "POST /v1/uploads/{upload_id}/complete": lambda ids: Call(
        f"/v1/uploads/{ids.upload}/complete", {"part_ids": [ids.part]}
    ),
    "POST /v1/uploads/{upload_id}/cancel": lambda ids: Call(f"/v1/uploads/{ids.upload}/cancel"),
    "POST /v1/batches": lambda ids: Call("/v1/batches", _batch_of(ids.file)),
    "GET /v1/batches": lambda ids: Call(f"/v1/batches?after={ids.batch}"),
    "GET /v1/batches/{id}": lambda ids: Call(f"/v1/batches/{ids.batch}"),
    "DELETE /v1/batches/{id}": lambda ids: Call(f"/v1/batches/{ids.batch}"),
    "POST /v1/batches/{id}/cancel": lambda ids: Call(f"/v1/batches/{ids.batch}/cancel"),
    "POST /v1/batches/{id}/retry": lambda ids: Call(f"/v1/batches/{ids.batch}/retry"),
    "GET /v1/batches/{id}/results": lambda ids: Call(f"/v1/batches/{ids.batch}/results"),
    "GET /v1/batches/{id}/lines": lambda ids: Call(f"/v1/batches/{ids.batch}/lines"),
    "GET /v1/batches/{id}/webhooks": lambda ids: Call(f"/v1/batches/{ids.batch}/webhooks"),
    "GET /get_task_status/{id}": lambda ids: Call(f"/get_task_status/{ids.batch}"),
    "GET /": lambda ids: Call(f"/?after={ids.batch}"),
    "GET /batches/{id}": lambda ids: Call(f"/batches/{ids.batch}"),
    "GET /batches/{id}/lines/{number}": lambda ids: Call(f"/batches/{ids.batch}/lines/1"),
    "GET /batches/{id}/chart": lambda ids: Call(f"/batches/{ids.batch}/chart"),
    "GET /new": lambda ids: Call(f"/new?file={ids.file}"),
}
"""How each route is asked for what there is; to who is not its owner all of it is unknown."""

ALSO_BY_ID: dict[str, Callable[[Ids], Call]] = {
    "POST /v1/uploads/{upload_id}/complete": lambda ids: Call(
        f"/v1/uploads/{ids.own_upload}/complete", {"part_ids": [ids.part]}
    ),
}

CREATES = {"POST /v1/files", "POST /v1/uploads", "POST /send_text"}
"""Name nothing that is there already, but for their idempotency key."""

LISTS = {"GET /tasks/", "GET /events"}
"""Name nothing, and tell of what is one's own: see `Tenant.view`."""

OF_THE_UPSTREAMS = {
    "GET /v1/models",
    "GET /v1/models/{id:path}",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/responses",
    "POST /v1/embeddings",
    "POST /v1/moderations",
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/videos",
    "POST /chat",
    "POST /chat/batched",
    "POST /v1/generate",
    "POST /v1/batch-generate",
    "POST /generate",
    "GET /health_check",
}
OF_THE_OPERATOR = {"GET /metrics"}
"""Tell sums over all tenants: see `test_metrics`."""

NEED_NO_KEY = {
    "GET /health",
    "GET /ready",
    "GET /version",
    "GET /openapi.json",
    "HEAD /openapi.json",
    "GET /sign-in",
    "HEAD /sign-in",
    "POST /sign-in",
    "POST /sign-out",
    "GET /static/{path:path}",
    "HEAD /static/{path:path}",
} | {f"GET /docs{rest}" for rest in ("", "/start.js", "/swagger-ui-bundle.js", "/swagger-ui.css")}

PAGES = {
    "GET /",
    "GET /batches/{id}",
    "GET /batches/{id}/lines/{number}",
    "GET /batches/{id}/chart",
    "GET /new",
    "GET /activity",
    "GET /activity/data",
    "GET /workers",
    "GET /storage",
    "GET /playground",
    "GET /condition",
}
PAGES |= {f"HEAD {page.removeprefix('GET ')}" for page in PAGES}
"""Without a key one is sent to where one signs in."""


_OF_A_BATCH = ("", "/results", "/lines", "/webhooks")


def routes_of(app: FastAPI) -> Iterator[str]:
    for route in iter_route_contexts(app.routes):
        yield from (f"{method} {route.path}" for method in route.methods or {"ANY"})


@dataclass
class Tenant:
    """What one tenant has made, deleted or not; newest last."""

    site: Site
    headers: dict[str, str]
    files: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)

    async def ask(
        self, method: str, call: Call, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        data = None if call.form is None else _multipart(call.form)
        async with self.site.http.request(
            method, call.path, json=call.json, data=data, headers=self.headers | (headers or {})
        ) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text())

    async def make(self, kind: str, path: str, **call: Any) -> None:
        """Note the id, if something was made."""
        status, made = await self.ask("POST", Call(path, **call))
        if status == 200:
            getattr(self, kind).append(made["id"])

    async def view(self) -> list[Any]:
        """All that this tenant can read."""
        calls = [Call("/v1/files"), Call("/v1/batches"), Call("/tasks/"), Call("/")]
        calls += [Call("/activity"), Call("/activity/data")]
        calls += [Call(f"/v1/files/{id}") for id in self.files]
        calls += [Call(f"/v1/files/{id}/content") for id in self.files]
        for id in self.batches:
            calls += [Call(f"/v1/batches/{id}{of}") for of in _OF_A_BATCH]
            calls.append(Call(f"/get_task_status/{id}"))
            calls += [Call(f"/batches/{id}{of}") for of in ("", "/lines/1", "/chart")]
        return [await self.ask("GET", call) for call in calls]

    def known(self, own_upload: str) -> list[Ids]:
        """Each thing at least once, for somebody else to try."""
        everything = (self.files, self.uploads, self.parts, self.batches)
        unknown = Ids.unknown(own_upload)
        found = []
        for place in range(max(map(len, everything))):
            given = {
                name: things[place]
                for name, things in zip(
                    ("file", "upload", "part", "batch"), everything, strict=True
                )
                if place < len(things)
            }
            found.append(replace(unknown, **given))
        return found

    @property
    def ids(self) -> set[str]:
        return {*self.files, *self.uploads, *self.parts, *self.batches}


def _multipart(fields: dict[str, str]) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for name, text in fields.items():
        is_file = name in ("file", "data")
        form.add_field(name, text.encode() if is_file else text, **_filename(is_file))
    return form


def _filename(is_file: bool) -> dict[str, str]:
    return {"filename": "in.jsonl"} if is_file else {}


UPLOAD = {
    "bytes": len(LINE),
    "filename": "in.jsonl",
    "mime_type": "application/jsonl",
    "purpose": "batch",
}
FORM = {"purpose": "batch", "file": LINE.decode()}


async def upload_file(tenant: Tenant) -> None:
    await tenant.make("files", "/v1/files", form=FORM)


async def delete_file(tenant: Tenant) -> None:
    for id in tenant.files[-1:]:
        await tenant.ask("DELETE", Call(f"/v1/files/{id}"))


async def begin_upload(tenant: Tenant) -> None:
    await tenant.make("uploads", "/v1/uploads", json=UPLOAD)


async def add_part(tenant: Tenant) -> None:
    for id in tenant.uploads[-1:]:
        await tenant.make("parts", f"/v1/uploads/{id}/parts", form={"data": LINE.decode()})


async def complete_upload(tenant: Tenant) -> None:
    for upload, part in zip(tenant.uploads[-1:], tenant.parts[-1:], strict=False):
        call = Call(f"/v1/uploads/{upload}/complete", {"part_ids": [part]})
        _, done = await tenant.ask("POST", call)
        file = done.get("file")  # deleted, if this is not the first completion
        if file and file["id"] not in tenant.files:
            tenant.files.append(file["id"])


async def cancel_upload(tenant: Tenant) -> None:
    for id in tenant.uploads[-1:]:
        await tenant.ask("POST", Call(f"/v1/uploads/{id}/cancel"))


async def begin_batch(tenant: Tenant) -> None:
    for id in tenant.files[-1:]:
        await tenant.make("batches", "/v1/batches", json=_batch_of(id))


async def send_text(tenant: Tenant) -> None:
    status, made = await tenant.ask("POST", Call("/send_text", {"text": "2+2", "model_name": "m"}))
    if status == 200:
        tenant.batches.append(made["task_id"])


async def retry_batch(tenant: Tenant) -> None:
    for id in tenant.batches[-1:]:
        await tenant.make("batches", f"/v1/batches/{id}/retry")


async def cancel_batch(tenant: Tenant) -> None:
    """To its end, with an error file."""
    for id in tenant.batches[-1:]:
        await tenant.ask("POST", Call(f"/v1/batches/{id}/cancel"))
        await wind_up(tenant.site)
        _, batch = await tenant.ask("GET", Call(f"/v1/batches/{id}"))
        if batch.get("error_file_id") not in (None, *tenant.files):
            tenant.files.append(batch["error_file_id"])


async def delete_batch(tenant: Tenant) -> None:
    for id in tenant.batches[-1:]:
        await tenant.ask("DELETE", Call(f"/v1/batches/{id}"))


ACTIONS = [
    upload_file,
    delete_file,
    begin_upload,
    add_part,
    complete_upload,
    cancel_upload,
    begin_batch,
    cancel_batch,
    retry_batch,
    delete_batch,
    send_text,
]


async def wind_up(site: Site) -> None:
    """What the scheduler does with batches that are cancelled before they were read."""
    upstreams = Upstreams(["http://127.0.0.1:9"], timeout_seconds=1)
    parts: dict[str, Any] = {
        "database": site.database,
        "blobs": Blobs(site.blobs_folder),
        "settings": site.settings,
        "clock": site.clock,
        "wakeup": Wakeup(),
        "metrics": SchedulerMetrics(CollectorRegistry()),
    }
    await Intake(upstreams=upstreams, **parts).validate_once()
    await Finalizer(**parts).finalize_once()
    await upstreams.close()


@pytest.fixture
async def pair(site: Site) -> tuple[Tenant, Tenant]:
    """A, and B, who has something of everything."""
    a, b = [
        Tenant(site, {"authorization": f"Bearer {key}"})
        for key in [await keys.make(site.keyring, site.settings, name) for name in ("a", "b")]
    ]
    for action in (upload_file, begin_batch, cancel_batch, begin_upload, add_part):
        await action(b)
    return a, b


def test_every_route_is_asked_what_it_tells_to_others(site: Site) -> None:
    """A new one belongs into one of these tables; where ids are spoken of, into the first."""
    known = {
        *BY_ID,
        *CREATES,
        *LISTS,
        *OF_THE_UPSTREAMS,
        *OF_THE_OPERATOR,
        *NEED_NO_KEY,
        *PAGES,
    }
    assert set(routes_of(site.app)) == known


async def test_every_other_route_needs_a_key(site: Site) -> None:
    await keys.make(site.keyring, site.settings, "a")
    for route in set(routes_of(site.app)) - NEED_NO_KEY:
        method, path = route.split()
        address = re.sub(r"{[^}]*}", "x", path)
        async with site.http.request(method, address, allow_redirects=False) as answer:
            assert answer.status == (303 if route in PAGES else 401), route


@pytest.mark.slow
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8))
async def test_whatever_one_tenant_does_the_other_sees_nothing_of_it(
    pair: tuple[Tenant, Tenant], actions: list[Callable[[Tenant], Any]]
) -> None:
    a, b = replace(pair[0], files=[], uploads=[], parts=[], batches=[]), pair[1]
    before = await b.view()

    for action in [upload_file, begin_batch, *actions]:
        await action(a)

    assert await b.view() == before
    assert not any(id in repr(before) for id in a.ids)
    await _assert_that_all_is_unknown_to(b, a)


async def test_the_way_through_everything_is_hidden_too(pair: tuple[Tenant, Tenant]) -> None:
    """The longest way, whatever the random ones have tried: part, file, batch, result."""
    a, b = pair
    for action in (begin_upload, add_part, complete_upload, begin_batch, cancel_batch):
        await action(a)
    assert (len(a.uploads), len(a.parts), len(a.batches), len(a.files)) == (1, 1, 1, 2)
    for id in a.files:
        assert (await a.ask("GET", Call(f"/v1/files/{id}/content")))[0] == 200

    await _assert_that_all_is_unknown_to(b, a)


async def _assert_that_all_is_unknown_to(stranger: Tenant, owner: Tenant) -> None:
    """Also when it is tried to change it; and nothing of it changes."""
    before = await owner.view()
    (own_upload,) = stranger.uploads
    for foreign in owner.known(own_upload):
        for route, call in [*BY_ID.items(), *ALSO_BY_ID.items()]:
            unknown = Ids.unknown(own_upload)
            method = route.split()[0]
            seen = _without(foreign, await stranger.ask(method, call(foreign)))
            assert seen == _without(unknown, await stranger.ask(method, call(unknown))), route
            assert seen[0] in (400, 404), route
    assert await owner.view() == before


def _without(ids: Ids, answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    told = repr(body)
    for id in (ids.file, ids.upload, ids.part, ids.batch):
        told = told.replace(id, "ID")
    return status, told


async def test_the_same_idempotency_key_gives_each_tenant_its_own(
    pair: tuple[Tenant, Tenant],
) -> None:
    made: list[list[Any]] = []
    for tenant in pair:
        await begin_upload(tenant)
        await upload_file(tenant)
        calls = [
            Call("/v1/files", form=FORM),
            Call("/v1/uploads", json=UPLOAD),
            Call(f"/v1/uploads/{tenant.uploads[-1]}/parts", form={"data": "x"}),
            Call("/v1/batches", json=_batch_of(tenant.files[-1])),
        ]
        answers = [await tenant.ask("POST", call, KEY) for call in calls]
        assert [status for status, _ in answers] == [200] * 4
        assert [await tenant.ask("POST", call, KEY) for call in calls] == answers
        made.append([body["id"] for _, body in answers])

    assert not set(made[0]) & set(made[1])
