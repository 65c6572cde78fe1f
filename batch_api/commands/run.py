"""`batch-api run`: one job from file to file, on the same store and scheduler as the server.

The job's state lies in a folder beside the output until all is written; a second call with the same
input goes on with it.
"""

import asyncio
import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from batch_api.client.input import InputUnusable, first_url, opened, unpacked_name
from batch_api.client.output import check_targets, errors_beside, remove, replacing
from batch_api.client.progress import display
from batch_api.commands.embedded import Embedded, embedded
from batch_api.commands.listening import stop_on_signals
from batch_api.commands.loading import Loading
from batch_api.commands.summary import sight_of, summary
from batch_api.lifecycle import BatchStatus
from batch_api.schemas.ids import batch_id, file_id
from batch_api.settings import Settings
from batch_api.store import batches, files
from batch_api.store.blobs import Written
from batch_api.store.folders import sync
from batch_api.store.tables import BatchRow
from batch_api.store.tenancy import DEFAULT_TENANT

_POLL_SECONDS = 0.2
_COPY_BYTES = 1024 * 1024
_ENOUGH_LINES = 10_000_000
_ENOUGH_BYTES = 1 << 40

_SOME_FAILED = 1
_NOT_VALID = 2
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Job:
    input: Path
    output: Path

    @property
    def errors(self) -> Path:
        """Where the lines without an answer go."""
        return errors_beside(self.output)

    @property
    def state(self) -> Path:
        return self.output.with_name(f".{self.output.name}.batch-api")

    @property
    def runs_on(self) -> Path:
        return self.state / "runs_on.json"

    @property
    def removed(self) -> Path:
        """The state on its way out: under this name it is never taken up, however much is left."""
        return self.state.with_name(f"{self.state.name}.removed")


async def run_job(job: Job, settings: Settings) -> int:
    """The exit code: 0 if every line was answered. Raises Unusable, also in a group."""
    endpoint = first_url(job.input)
    check_targets(job.output, job.input)
    settings = settings.model_copy(
        update={
            "data_dir": job.state,
            # The limits of a server that strangers use; this file is the caller's own.
            "max_batch_lines": _ENOUGH_LINES,
            "max_queued_lines": _ENOUGH_LINES,
            "max_batch_file_bytes": _ENOUGH_BYTES,
            # Who calls it waits for it; and nobody would try again when it is over.
            "webhook_urls": (),
            "webhook_secret": None,
        }
    )
    stop = stop_on_signals(second=_INTERRUPTED)
    await asyncio.to_thread(_sweep, job)
    async with embedded(settings) as it:
        id = await _take_up(job, it, endpoint, _RunsOn.by(settings))
        batch = await _follow(id, it, stop)
        code = await _conclude(job, batch, it)
    if code != _INTERRUPTED:
        await asyncio.to_thread(_remove_state, job)
    return code


class _RunsOn(msgspec.Struct, frozen=True):
    """What answers the lines of a job; kept in its state, for answers of two are not to be mixed.

    An upstream may serve several models; which one it is, each line says.
    """

    model: str | None
    upstream: tuple[str, ...]

    @classmethod
    def by(cls, settings: Settings) -> Self:
        if settings.upstream:
            return cls(None, tuple(sorted(settings.upstream)))
        folder = Path(settings.model).expanduser()
        return cls(str(folder.resolve()) if folder.is_dir() else settings.model, ())

    def __str__(self) -> str:
        return self.model or " and ".join(self.upstream)


async def _take_up(job: Job, it: Embedded, endpoint: str, runs_on: _RunsOn) -> str:
    """The id of the batch that an earlier call left, or of a new one."""
    sha256 = await asyncio.to_thread(_sha256, job.input)
    async with it.database.read() as session:
        left = (await batches.page(session, after=None, limit=1)).rows
        file = await files.get(session, left[0].input_file_id, now=0) if left else None
    if not left:
        await asyncio.to_thread(_remember, job, runs_on)
        return await _create(job, it, endpoint)
    if file is None or file.sha256 != sha256:
        raise InputUnusable(
            f"{job.state} holds the unfinished job of another input; remove it to begin this one."
        )
    before = await asyncio.to_thread(_remembered, job)
    if before not in (None, runs_on):
        raise InputUnusable(
            f"{job.state} holds the unfinished job that runs on {before}, not on {runs_on}; "
            "go on with that, or remove the folder to begin anew."
        )
    return left[0].id


def _remember(job: Job, runs_on: _RunsOn) -> None:
    """Before there is a batch, so that each batch has it."""
    job.runs_on.write_bytes(msgspec.json.encode(runs_on))


def _remembered(job: Job) -> _RunsOn | None:
    try:
        return msgspec.json.decode(job.runs_on.read_bytes(), type=_RunsOn)
    except (OSError, msgspec.DecodeError):
        return None


async def _create(job: Job, it: Embedded, endpoint: str) -> str:
    input_id, now = file_id(), int(it.clock.now())
    written = await _take_in(job, it, input_id)
    async with it.database.of(DEFAULT_TENANT).write.begin() as session:
        files.add(
            session,
            id=input_id,
            filename=unpacked_name(job.input),
            purpose="batch",
            bytes=written.bytes,
            sha256=written.sha256,
            created_at=now,
            expires_at=None,
        )
        batch = batches.add(
            session,
            id=batch_id(),
            endpoint=endpoint,
            completion_window="24h",
            input_file_id=input_id,
            output_file_id=file_id(),
            error_file_id=file_id(),
            created_at=now,
            expires_at=None,
        )
    return batch.id


async def _take_in(job: Job, it: Embedded, id: str) -> Written:
    """The text of the input, as a blob. Raises InputUnusable."""
    try:
        async with it.blobs.receiving(id) as writer:
            with opened(job.input) as text:
                while piece := await asyncio.to_thread(text.read, _COPY_BYTES):
                    await writer.write(piece)
            return await it.blobs.publish(id, writer)
    except OSError as error:
        raise InputUnusable(f"{job.input} can't be copied: {error.strerror}.") from error


async def _follow(id: str, it: Embedded, stop: asyncio.Event) -> BatchRow:
    """Run the scheduler, and show how far it is, until the batch is final or a signal comes."""
    halt, loading = asyncio.Event(), Loading(it.upstreams, it.clock, are_own=it.has_own_workers)
    async with asyncio.TaskGroup() as group:
        group.create_task(it.scheduler.run(halt))
        with display() as shown:
            while True:
                batch = await _get(id, it)
                is_over = BatchStatus(batch.status).is_final
                why = None if is_over else await loading.waits_for(it.scheduler.waits_for)
                shown.show(sight_of(batch), waits_for=why)
                if is_over or stop.is_set():
                    break
                await asyncio.sleep(_POLL_SECONDS)
        halt.set()
        if stop.is_set() and it.upstreams.are_busy:
            print("Waiting for what is in flight; once more ends it at once.", file=sys.stderr)
    return await _get(id, it)


async def _get(id: str, it: Embedded) -> BatchRow:
    async with it.database.read() as session:
        batch = await batches.get(session, id)
    assert batch is not None
    return batch


async def _conclude(job: Job, batch: BatchRow, it: Embedded) -> int:
    """Put the files where they were asked for, say how it went, and return the exit code."""
    if not BatchStatus(batch.status).is_final:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return _INTERRUPTED
    if batch.status == BatchStatus.FAILED:
        _print_problems(job, batch)
        return _NOT_VALID
    output, errors = it.blobs.path(batch.output_file_id), it.blobs.path(batch.error_file_id)
    await asyncio.to_thread(_put, output if batch.completed else None, job.output)
    await asyncio.to_thread(_put, errors if batch.failed else None, job.errors)
    print(summary(batch, job.output, job.errors), file=sys.stderr)
    return _SOME_FAILED if batch.failed else 0


def _print_problems(job: Job, batch: BatchRow) -> None:
    print(f"{job.input} is not valid; nothing was run:", file=sys.stderr)
    for problem in batch.errors or []:
        where = f"line {problem['line']}: " if problem["line"] else ""
        print(f"  {where}{problem['message']} ({problem['code']})", file=sys.stderr)


def _put(source: Path | None, target: Path) -> None:
    """Replace the target whole, and on the disk; no source, no target. Raises OutputUnusable."""
    if source is None:
        remove(target)
        return
    with replacing(target) as writer, source.open("rb") as reader:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)


def _remove_state(job: Job) -> None:
    job.state.rename(job.removed)
    sync(job.removed.absolute().parent)
    _sweep(job)


def _sweep(job: Job) -> None:
    """Also of what an earlier call was removing when it was killed."""
    shutil.rmtree(job.removed, ignore_errors=True)


def _sha256(input: Path) -> str:
    """Of its text."""
    with opened(input) as text:
        return hashlib.file_digest(text, "sha256").hexdigest()
