"""Short ways to the rows that tests of the store begin with."""

from collections.abc import Sequence

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store import batches, files, requests, uploads
from batch_api.store.batches import Running
from batch_api.store.database import Database
from batch_api.store.requests import Lease, Place, Settlement
from batch_api.store.tables import BatchRow, RequestRow
from batch_api.store.tenancy import DEFAULT_TENANT

LEASE_SECONDS = 60.0


async def add_batch(
    database: Database,
    id: str = "batch_1",
    *,
    lines: int = 0,
    input_file_id: str = "file-in",
    expires_at: int | None = None,
    tenant: str = DEFAULT_TENANT,
    webhook_url: str | None = None,
) -> int:
    """The number of a batch in `validating`, or in `in_progress` if it has lines."""
    async with database.of(tenant).write.begin() as session:
        batch = batches.add(
            session,
            id=id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            input_file_id=input_file_id,
            output_file_id=f"file-out-{id}",
            error_file_id=f"file-err-{id}",
            created_at=1,
            expires_at=expires_at,
            webhook_url=webhook_url,
        )
        await session.flush()
        if lines:
            await requests.add(session, batch.number, map(place, range(1, lines + 1)))
            await batches.set_total(session, batch.number, lines)
            assert await batches.start(session, batch.number, now=2.0)
    return batch.number


def place(line: int) -> Place:
    return Place(line=line, custom_id=f"row-{line}", body_offset=100 * line, body_length=50)


async def add_file(
    database: Database,
    id: str,
    *,
    purpose: str = "batch",
    created_at: int = 1,
    expires_at: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> None:
    async with database.of(tenant).write.begin() as session:
        files.add(
            session,
            id=id,
            filename=f"{id}.jsonl",
            purpose=purpose,
            bytes=1,
            sha256="",
            created_at=created_at,
            expires_at=expires_at,
        )


async def add_upload(
    database: Database, id: str, *part_ids: str, expires_at: int, tenant: str = DEFAULT_TENANT
) -> int:
    """The number of a pending upload with these parts, a byte each."""
    async with database.of(tenant).write.begin() as session:
        upload = uploads.add(
            session,
            id=id,
            filename="big.jsonl",
            purpose="batch",
            mime_type="application/jsonl",
            bytes=len(part_ids) or 1,
            file_expires_after_seconds=None,
            created_at=1,
            expires_at=expires_at,
        )
        await session.flush()
        for part_id in part_ids:
            uploads.add_part(
                session, id=part_id, upload_number=upload.number, bytes=1, created_at=1
            )
    return upload.number


async def lease(
    database: Database, number: int, *, now: float = 0.0, limit: int = 100
) -> list[Lease]:
    async with database.write.begin() as session:
        return await requests.lease(
            session, number, limit=limit, now=now, until=now + LEASE_SECONDS
        )


def running(
    number: int,
    *,
    tenant: str = "default",
    expires_at: int | None = None,
    mean_output_tokens: float = 0.0,
) -> Running:
    """A batch in progress with requests to run."""
    return Running(
        number=number,
        id=f"batch_{number}",
        tenant=tenant,
        endpoint="/v1/chat/completions",
        input_file_id="file-in",
        expires_at=expires_at,
        mean_output_tokens=mean_output_tokens,
        is_waiting=True,
    )


async def settle(database: Database, *settlements: Settlement) -> list[Settlement]:
    async with database.write.begin() as session:
        return await requests.settle(session, settlements)


def answer(held: Lease, line: bytes = b"{}\n") -> Settlement:
    return Settlement(held, RequestState.COMPLETED, line)


async def status(database: Database, number: int) -> BatchStatus:
    return BatchStatus((await batch(database, number)).status)


async def batch(database: Database, number: int) -> BatchRow:
    async with database.read() as session:
        return await session.get_one(BatchRow, number)


async def request(database: Database, id: int) -> RequestRow:
    async with database.read() as session:
        return await session.get_one(RequestRow, id)


async def states(database: Database, number: int) -> Sequence[str]:
    """In input order."""
    return [outcome.state for outcome in await outcomes(database, number)]


async def outcomes(database: Database, number: int) -> list[requests.Outcome]:
    async with database.read() as session:
        return await requests.outcomes(
            session, number, after_line=0, limit=1_000_000, most_bytes=1_000_000_000
        )
