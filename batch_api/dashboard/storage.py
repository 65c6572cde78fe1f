"""`/storage`: where the disk went: the tenant's own files, and what the server needs besides."""

from dataclasses import dataclass

from fastapi import Request, Response

from batch_api.api.deps import AllParts
from batch_api.dashboard.pages import Viewing, pages
from batch_api.remembered import Remembered
from batch_api.settings import Settings
from batch_api.store import batches, files, usage
from batch_api.store.blobs import KEEP_ORPHANS_DAYS
from batch_api.store.database import bytes_on_disk

router = pages()

_LARGEST = 10
_ORPHANS_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Disk:
    """Everyone's."""

    free_bytes: int
    mark_bytes: int
    """Below it nothing more is taken in."""
    state: str
    database_bytes: int
    log_bytes: int
    orphans: int
    orphan_bytes: int


@dataclass(frozen=True, slots=True)
class Limit:
    """Something a tenant may have so much of."""

    name: str
    used: int
    most: int
    are_bytes: bool = False


@router.get("/storage")
async def storage(request: Request, view: Viewing) -> Response:
    parts, settings = view.parts, view.parts.settings
    async with parts.database.read() as session:
        shares = [
            *await usage.by_purpose(session),
            await usage.parts(session),
            await usage.deleted_inputs(session),
        ]
        limits = [
            Limit("Stored", await files.stored_bytes(session), settings.max_stored_bytes, True),
            Limit(
                "Active batches", await batches.count_active(session), settings.max_active_batches
            ),
            Limit(
                "Lines that wait",
                await batches.count_queued_lines(session),
                settings.max_queued_lines,
            ),
        ]
        largest = await usage.largest(session, limit=_LARGEST, now=parts.clock.now())
        removed = await usage.removed_batches(session)
    return view.page(
        "storage.html",
        disk=await _disk(parts, request.app.state.remembered),
        shares=[share for share in shares if share.files],
        limits=limits,
        largest=largest,
        removed=removed,
        kept=_kept(settings),
        orphan_days=KEEP_ORPHANS_DAYS,
    )


async def _disk(parts: AllParts, remembered: Remembered) -> Disk:
    room = parts.blobs.room
    database_bytes, log_bytes = bytes_on_disk(parts.settings.data_dir)
    orphans, orphan_bytes = await remembered.find(
        "orphans", parts.blobs.orphans, keep_seconds=_ORPHANS_SECONDS
    )
    return Disk(
        free_bytes=room.free_bytes(),
        mark_bytes=room.min_free_bytes(),
        state=room.state(),
        database_bytes=database_bytes,
        log_bytes=log_bytes,
        orphans=orphans,
        orphan_bytes=orphan_bytes,
    )


def _kept(settings: Settings) -> list[tuple[str, str]]:
    """What is kept, and for how long."""
    return [
        ("Uploaded files", _days(settings.keep_files_days, "until they expire or are deleted")),
        ("Results", _days(settings.keep_results_days, "until they expire or are deleted")),
        ("Batches that are over", _days(settings.keep_batches_days, "until they are deleted")),
    ]


def _days(days: float | None, otherwise: str) -> str:
    return otherwise if days is None else f"{days:g} days, if not deleted before"
