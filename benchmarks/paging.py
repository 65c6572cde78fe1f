"""How long the store takes for a page, however deep: 1,000 batches, 10,000 files, auto-paged.

Run `python -m benchmarks.paging`; exits with 1 if a page took longer than it may.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store import batches, files
from batch_api.store.database import Database
from batch_api.store.pages import Page
from batch_api.store.tenancy import DEFAULT_TENANT

_GOAL_SECONDS = 0.05
_TURNS = 5
"""Of each page the best counts: the rest is the machine's."""
_NOW = 1_795_000_000

Fetch = Callable[[AsyncSession, str | None], Awaitable[Page[Any]]]


async def _fill(database: Database, *, batch_count: int, file_count: int) -> None:
    async with database.of(DEFAULT_TENANT).write.begin() as session:
        for number in range(file_count):
            files.add(
                session,
                id=f"file-{number}",
                filename=f"{number}.jsonl",
                purpose="batch" if number % 2 else "user_data",
                bytes=1,
                sha256="0" * 64,
                created_at=_NOW,
                expires_at=_NOW + 86_400 if number % 2 else None,
            )
        for number in range(batch_count):
            batches.add(
                session,
                id=f"batch_{number}",
                endpoint="/v1/chat/completions",
                completion_window="24h",
                input_file_id=f"file-{number}",
                output_file_id=f"file-out-{number}",
                error_file_id=f"file-err-{number}",
                created_at=_NOW,
                expires_at=_NOW + 86_400,
                metadata={str(key): "x" * 512 for key in range(16)},
            )


async def _walk(database: Database, fetch: Fetch) -> tuple[int, list[float]]:
    """The rows of all pages, and the seconds that each page took."""
    seconds: list[float] = []
    rows, after, has_more = 0, None, True
    while has_more:
        start = time.perf_counter()
        async with database.of(DEFAULT_TENANT).read() as session:
            page = await fetch(session, after)
        seconds.append(time.perf_counter() - start)
        rows, has_more = rows + len(page.rows), page.has_more
        after = page.rows[-1].id if page.rows else None
    return rows, seconds


def _files(limit: int, purpose: str | None = None) -> Fetch:
    async def fetch(session: AsyncSession, after: str | None) -> Page[Any]:
        return await files.page(
            session, after=after, limit=limit, order="desc", purpose=purpose, now=_NOW
        )

    return fetch


def _batches(limit: int) -> Fetch:
    async def fetch(session: AsyncSession, after: str | None) -> Page[Any]:
        return await batches.page(session, after=after, limit=limit)

    return fetch


async def _run(batch_count: int, file_count: int) -> bool:
    walks = {
        "batches, 20 a page": _batches(20),
        "batches, 100 a page": _batches(100),
        "files, 100 a page": _files(100),
        "files for batches, 100 a page": _files(100, "batch"),
        "files, 1,000 a page": _files(1_000),
        "files, 10,000 a page": _files(10_000),
    }
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(Path(folder))
        await _fill(database, batch_count=batch_count, file_count=file_count)
        for name, fetch in walks.items():
            turns = [await _walk(database, fetch) for _ in range(_TURNS)]
            rows = turns[0][0]
            seconds = [min(page) for page in zip(*(taken for _, taken in turns), strict=True)]
            worst = max(seconds)
            is_good &= worst < _GOAL_SECONDS
            print(
                f"{name:>30}: {rows:6,} rows in {len(seconds):3} pages;"
                f" first {seconds[0] * 1e3:5.1f} ms, last {seconds[-1] * 1e3:5.1f} ms,"
                f" slowest {worst * 1e3:5.1f} ms"
            )
        await database.close()
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batches", type=int, default=1_000)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    sys.exit(not asyncio.run(_run(options.batches, options.files)))


if __name__ == "__main__":
    main()
