"""Windows in which servers like this one have lost, doubled or undone work.

In each the server really dies, or sleeps while somebody else is quicker: a failpoint sits there.
"""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, ConflictError, OpenAI
from prometheus_client import CollectorRegistry

from batch_api.failpoints import EXIT_STATUS
from batch_api.scheduler.finalizer import Finalizer
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.wakeup import Wakeup
from batch_api.settings import Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.inspection import inspect
from tests.clock import START, TurnableClock
from tests.faults.job import Job
from tests.faults.remains import read_remains
from tests.receiver import HANG, SECRET, Receiver
from tests.server import Server, StandinProcess
from tests.standin import Fault

pytestmark = pytest.mark.slow

_FIVE = [f"line-{number}" for number in range(5)]
_MAX_IN_FLIGHT = 2
_POLL_SECONDS = 0.02
_REFUSED = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """A data folder and a stand-in, for one server after the other."""

    folder: Path
    standin: StandinProcess

    def server(self, failpoints: str = "", **settings: object) -> Server:
        settings = {"max_in_flight": _MAX_IN_FLIGHT, "failpoints": failpoints, **settings}
        return Server(self.folder, self.standin.url, settings=settings)

    @contextmanager
    def served(self, failpoints: str = "", **settings: object) -> Iterator[tuple[Server, OpenAI]]:
        server = self.server(failpoints, **settings)
        with server, server.client(max_retries=0) as client:
            yield server, client

    @property
    def served_times(self) -> list[int]:
        """How often the stand-in got each line."""
        return [self.standin.served()[id] for id in _FIVE]

    @property
    def blobs(self) -> list[Path]:
        return sorted((self.folder / "data" / "files").iterdir())


@pytest.fixture
def stage(tmp_path: Path, migrated: Path) -> Iterator[Stage]:
    (tmp_path / "data").mkdir()
    shutil.copy(migrated, tmp_path / "data")
    with StandinProcess(tmp_path) as standin:
        yield Stage(tmp_path, standin)
    inspection = inspect(tmp_path / "data", deep=True, results_are_kept=True)
    assert inspection.is_all_right, inspection


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_create_crash_after_store(stage: Stage) -> None:
    """The batch is there; the client that heard nothing asks again, and gets it."""
    job = Job(_FIVE)
    with stage.served("create_crash_after_store=exit") as (server, client):
        with pytest.raises(APIConnectionError):
            job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS

    with stage.served() as (server, client):
        (stored,) = client.batches.list()
        job.create(client)
        job.complete(server, client)
        assert [batch.id for batch in client.batches.list()] == [stored.id] == [job.batch_id]
    assert stage.served_times == [1] * 5


def test_cancel_event_lost(stage: Stage) -> None:
    """Nobody was woken and nobody told: the next server ends the batch, and runs none of it."""
    stage.standin.set_fault(Fault(ending="hang"))
    job = Job(_FIVE)
    with stage.served("cancel_event_lost=exit") as (server, client):
        job.create(client)
        stage.standin.wait_until_received(_MAX_IN_FLIGHT)
        with pytest.raises(APIConnectionError):
            client.batches.cancel(job.batch_id)
        assert server.wait_until_ended() == EXIT_STATUS

    with stage.served() as (server, client):
        assert client.batches.cancel(job.batch_id).status in ("cancelling", "cancelled")
        assert job.end(server, client).status == "cancelled"
    assert stage.served_times == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("ending", ["goes on", "is killed"])
def test_cancel_reverted(stage: Stage, ending: str) -> None:
    """A batch that is cancelled while it is validated is not started by who validates it."""
    job = Job(_FIVE)
    with stage.served("cancel_reverted=sleep:3000") as (server, client):
        job.create(client)
        server.wait_until_logged("failpoint reached")
        assert client.batches.cancel(job.batch_id).status == "cancelling"
        if ending == "is killed":
            server.kill()
            server.start()
        assert job.end(server, client).status == "cancelled"
    assert stage.served_times == [0] * 5


@pytest.mark.parametrize("window", ["cancel_racing_completion", "terminal_overwrite"])
def test_cancel_racing_completion(stage: Stage, window: str) -> None:
    """Cancelled with its answers at hand, or its files written: both are kept, and the cancel."""
    job = Job(_FIVE[:_MAX_IN_FLIGHT])
    with stage.served(f"{window}=sleep:3000") as (server, client):
        job.create(client)
        server.wait_until_logged("failpoint reached")
        assert client.batches.cancel(job.batch_id).status == "cancelling"
        batch = job.end(server, client)
        assert client.batches.cancel(job.batch_id).status == "cancelled"

    assert (batch.status, batch.completed_at) == ("cancelled", None)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == len(job.custom_ids)


def test_terminal_overwrite(stage: Stage) -> None:
    """A finalizer sleeps while another one ends the batch: its end and its files stay."""
    late, after = Job(_FIVE), Job(["after"])
    with stage.served("terminal_overwrite=sleep:3000@1") as (server, client):
        late.create(client)
        server.wait_until_logged("failpoint reached")
        asyncio.run(_finalize_elsewhere(server.data_dir))
        ended = late.complete(server, client)
        after.create(client)
        after.complete(server, client)  # the sleeper is awake

        assert ended.completed_at == START
        assert late.complete(server, client) == ended
        with pytest.raises(ConflictError):
            client.batches.cancel(late.batch_id)


async def _finalize_elsewhere(data_dir: Path) -> None:
    """As nobody can who respects the folder's lock."""
    database = Database(data_dir / "batch-api.db", os.open(os.devnull, os.O_RDONLY))
    finalizer = Finalizer(
        database=database,
        blobs=Blobs(data_dir / "files"),
        settings=Settings(),
        clock=TurnableClock(),
        wakeup=Wakeup(),
        metrics=SchedulerMetrics(CollectorRegistry()),
    )
    assert await finalizer.finalize_once() == 1
    await database.close()


def test_worker_crash_strands_job(stage: Stage) -> None:
    """The worker dies, and the server before it gives the line back: the line runs all the same."""
    stage.standin.set_fault(Fault(ending="hang"))
    job = Job(_FIVE)
    with stage.served("worker_crash_strands_job=exit", max_in_flight=1) as (server, client):
        job.create(client)
        stage.standin.wait_until_received(1)
        stage.standin.kill()
        assert server.wait_until_ended() == EXIT_STATUS
    assert "line-0" in read_remains(server.data_dir, job.batch_id).leased

    stage.standin.start()
    with stage.served() as (server, client):
        job.complete(server, client)
    assert stage.served_times == [2, 1, 1, 1, 1]


def test_orphaned_blob(stage: Stage) -> None:
    """The bytes of a file that nobody was told of are set aside at the next start."""
    job = Job(_FIVE)
    with stage.served("orphaned_blob=exit") as (server, client):
        with pytest.raises(APIConnectionError):
            job.upload(client)
        assert server.wait_until_ended() == EXIT_STATUS
    (orphan,) = stage.blobs

    with stage.served() as (server, client):
        assert list(client.files.list()) == []
        assert stage.blobs == [orphan.with_name(f"{orphan.name}.orphan")]
        job.create(client)
        job.complete(server, client)


def test_finalization_strand(stage: Stage) -> None:
    """The files are written and the end is not: the same files are written again, byte for byte."""
    job = Job(_FIVE, faults={_FIVE[2]: Fault(status=400)})
    with stage.served("finalization_strand=exit") as (server, client):
        job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS
    assert read_remains(server.data_dir, job.batch_id).status == "finalizing"
    written = {path.name: path.read_bytes() for path in stage.blobs}
    assert len(written) == 3

    with stage.served() as (server, client):
        batch = job.end(server, client)
        assert batch.status == "completed"
        for id in (batch.output_file_id, batch.error_file_id):
            assert id is not None
            assert client.files.content(id).content == written[id]
    assert stage.served_times == [1] * 5


@pytest.mark.parametrize("window", ["cancel_racing_completion", "duplicate_execution"])
def test_duplicate_execution(stage: Stage, window: str) -> None:
    """Killed before or after a group's commit: what was in flight runs again, and nothing else."""
    job = Job(_FIVE, faults={id: Fault(delay_ms=200) for id in _FIVE})
    with stage.served(f"{window}=exit@2") as (server, client):
        job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS
    remains = read_remains(server.data_dir, job.batch_id)
    stage.standin.wait_until_left()
    before = stage.standin.served()
    assert remains.ended < set(before)

    with stage.served() as (server, client):
        job.complete(server, client)
    in_flight = set(before) - remains.ended
    assert 0 < len(in_flight) <= 2 * _MAX_IN_FLIGHT
    assert stage.served_times == [1 + (id in in_flight) for id in _FIVE]


def test_recovery_crash_loop(stage: Stage) -> None:
    """However often a server dies while it recovers, the next one knows all that was known."""
    job = Job(_FIVE, faults={id: Fault(delay_ms=200) for id in _FIVE})
    with stage.served("duplicate_execution=exit@2") as (server, client):
        job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS
    ended = read_remains(server.data_dir, job.batch_id).ended
    assert ended

    dying = stage.server("recovery_crash_loop=exit")
    for _ in range(3):
        dying.spawn()
        assert dying.wait_until_ended() == EXIT_STATUS
        assert read_remains(server.data_dir, job.batch_id).ended == ended
    with stage.served() as (server, client):
        job.complete(server, client)
    assert all(stage.standin.served()[id] == 1 for id in ended)
    assert max(stage.served_times) <= 2


def test_zombie_owner_burns_inference(stage: Stage) -> None:
    """Who stalls for longer than its leases lets go of the requests, and of their late answers."""
    hangs_once = Fault(ending="hang", times=1)
    job = Job(_FIVE, faults=dict.fromkeys(_FIVE[:_MAX_IN_FLIGHT], hangs_once))
    stalled = "zombie_owner_burns_inference=sleep:3000@1"
    with stage.served(stalled, lease_seconds=2) as (server, client):
        job.create(client)
        job.complete(server, client)

        stats = stage.standin.stats()
        assert (stats.open, stats.most_open) == (0, _MAX_IN_FLIGHT)
    assert stage.served_times == [2, 2, 1, 1, 1]


def test_webhook_lost(stage: Stage, receiver: Receiver) -> None:
    """The batch has ended, and the server died before it told: the next one tells, once."""
    job = Job(_FIVE)
    with stage.served("webhook_lost=exit", **_told(receiver)) as (server, client):
        job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS
    assert read_remains(server.data_dir, job.batch_id).status == "completed"
    assert receiver.heard == []

    with stage.served(**_told(receiver)) as (server, client):
        receiver.wait_until_heard(1)
        server.wait_until_logged("webhook delivered")
        job.check(client, client.batches.retrieve(job.batch_id))
        assert [heard.batch_id(client) for heard in receiver.heard] == [job.batch_id]


def test_webhook_told_twice(stage: Stage, receiver: Receiver) -> None:
    """The server died before it had recorded the answer: it is told again, under the same id."""
    job = Job(_FIVE)
    with stage.served("webhook_told_twice=exit", **_told(receiver)) as (server, client):
        job.create(client)
        assert server.wait_until_ended() == EXIT_STATUS
    assert len(receiver.heard) == 1

    with stage.served(**_told(receiver)) as (server, client):
        server.wait_until_logged("webhook delivered")
        server.terminate()
        assert {heard.batch_id(client) for heard in receiver.heard} == {job.batch_id}
    first, second = receiver.heard
    assert first.id == second.id


def test_a_server_that_is_killed_while_a_receiver_hangs_tells_it_again(
    stage: Stage, receiver: Receiver
) -> None:
    job = Job(_FIVE)
    receiver.replies.append(HANG)
    with stage.served(**_told(receiver)) as (server, client):
        job.create(client)
        receiver.wait_until_heard(1)
        server.kill()
    with stage.served(**_told(receiver)) as (server, client):
        server.wait_until_logged("webhook delivered")
    first, second = receiver.heard
    assert first.id == second.id


def _told(receiver: Receiver) -> dict[str, Any]:
    return {"webhook_urls": json.dumps([receiver.url()]), "webhook_secret": SECRET}


def test_replicas_execute_once(stage: Stage) -> None:
    """Of two servers that start at once on one folder, one runs what is there, the other none."""
    job = Job(_FIVE)
    with stage.served("cancel_reverted=sleep:60000") as (server, client):
        job.create(client)
        server.kill()

    replicas = [stage.server("replicas_execute_once=sleep:500") for _ in range(2)]
    with ExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.sweep)
            replica.spawn()
        while not any(replica.has_ended for replica in replicas):
            time.sleep(_POLL_SECONDS)
        winner, loser = sorted(replicas, key=attrgetter("has_ended"))
        assert loser.wait_until_ended() == _REFUSED
        assert "is in use by another batch-api" in loser.log_tail()
        winner.wait_until_ready()
        with winner.client() as client:
            job.complete(winner, client)
    assert stage.served_times == [1] * 5


def test_a_validation_that_is_killed_starts_again(stage: Stage) -> None:
    job = Job(_FIVE)
    with stage.served("cancel_reverted=sleep:60000") as (server, client):
        job.create(client)
        server.wait_until_logged("failpoint reached")
        server.kill()
    remains = read_remains(server.data_dir, job.batch_id)
    assert (remains.status, len(remains.states)) == ("validating", 5)

    with stage.served() as (server, client):
        job.complete(server, client)
    assert stage.served_times == [1] * 5
