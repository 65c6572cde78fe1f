"""What a batch takes over from the one that it continues."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from batch_api.lifecycle import RequestState
from batch_api.scheduler import earlier
from batch_api.scheduler.earlier import EarlierAnswers
from batch_api.scheduler.intake import NO_INPUT
from batch_api.schemas.lines import answered_line
from batch_api.store import batches, requests
from batch_api.store.batches import Usage
from batch_api.store.inspecting.findings import Kind
from batch_api.store.inspection import inspect
from batch_api.store.requests import Place
from batch_api.store.tenancy import DEFAULT_TENANT
from tests.scheduler.site import INPUT, Site, ids, questions
from tests.store import rows

OUTPUT = "file-earlier"


def answered(*lines: int, usage: object = None, text: str = "") -> bytes:
    """An output file with answers to these lines."""
    body = msgspec.json.encode({"model": "stand-in", "text": text, "usage": usage})
    return b"".join(
        answered_line(
            id=f"old-{line}", custom_id=f"row-{line}", status=200, request_id="r", body=body
        )
        for line in lines
    )


def write(folder: Path, content: bytes) -> Path:
    path = folder / "output"
    path.write_bytes(content)
    return path


def test_each_answer_finds_its_line_and_no_other(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    content = answered(2, 3, 6, usage=usage)
    taken = EarlierAnswers(write(tmp_path, content))

    found = [place for page in (range(1, 4), range(4, 8)) for place in portion(taken, page)]

    answers = {place.line: place.answer for place in found if place.answer is not None}
    assert list(answers) == [2, 3, 6]
    assert b"".join(answers.values()) == content
    assert [place.line for place in found] == list(range(1, 8))
    assert taken.tally.completed == 3
    assert taken.tally.usage == Usage(input_tokens=9, output_tokens=15)
    assert taken.tally.model == "stand-in"


def portion(taken: EarlierAnswers, lines: range) -> list[Place]:
    (only,) = taken.portions([rows.place(line) for line in lines])
    return only


def test_a_batch_that_continues_no_other_takes_nothing_over() -> None:
    taken = EarlierAnswers(None)

    assert [place.answer for place in portion(taken, range(1, 3))] == [None, None]
    assert taken.tally.completed == 0


def test_an_answer_without_a_count_of_tokens_is_taken_over_all_the_same(tmp_path: Path) -> None:
    taken = EarlierAnswers(write(tmp_path, answered(1, usage={"prompt_tokens": -1})))

    assert portion(taken, range(1, 2))[0].answer is not None
    assert taken.tally.usage == Usage()


def test_long_answers_come_in_portions(tmp_path: Path) -> None:
    third = earlier._PORTION_BYTES // 3 + 1
    taken = EarlierAnswers(write(tmp_path, answered(*range(1, 8), text="x" * third)))

    portions = list(taken.portions([rows.place(line) for line in range(1, 9)]))

    assert [[place.line for place in each] for each in portions] == [[1, 2, 3], [4, 5, 6], [7, 8]]


@pytest.fixture
async def number(site: Site) -> int:
    """A batch of four lines, of which an earlier one has answered two."""
    await site.upload(answered(1, 3, usage={"prompt_tokens": 2, "completion_tokens": 4}), OUTPUT)
    await site.upload(questions(4))
    async with site.database.of(DEFAULT_TENANT).write.begin() as session:
        batch = batches.add(
            session,
            id="batch_1",
            endpoint="/v1/chat/completions",
            completion_window="24h",
            input_file_id=INPUT,
            output_file_id="file-out",
            error_file_id="file-err",
            created_at=int(site.clock.now()),
            expires_at=None,
            continues_id="batch_0",
            earlier_output_file_id=OUTPUT,
            earlier_completed=2,
        )
    return batch.number


async def test_what_was_answered_before_is_counted_when_the_work_begins(
    site: Site, number: int
) -> None:
    await site.intake.validate_once()

    batch = await site.batch(number)
    assert (batch.status, batch.model) == ("in_progress", "stand-in")
    assert await site.counts(number) == (4, 2, 0)
    assert (batch.input_tokens, batch.output_tokens) == (4, 8)
    states = await rows.states(site.database, number)
    assert states == ["completed", "pending", "completed", "pending"]


async def test_a_validation_that_was_cut_off_takes_over_everything_anew(
    site: Site, number: int
) -> None:
    """As a crash leaves it: some rows and answers are there, and nothing is counted."""
    done = EarlierAnswers(site.blobs.path(OUTPUT))
    async with site.database.write.begin() as session:
        await requests.add(session, number, portion(done, range(1, 4)))

    batch = await site.run(number)

    assert batch.status == "completed"
    assert await site.counts(number) == (4, 4, 0)
    lines = await site.output(number)
    assert ids(lines) == [f"row-{line}" for line in range(1, 5)]
    assert [lines[0]["id"], lines[2]["id"]] == ["old-1", "old-3"]
    assert site.standin.stats.received == 2


async def test_a_folder_of_which_the_server_was_killed_meanwhile_is_all_right(
    site: Site, number: int
) -> None:
    done = EarlierAnswers(site.blobs.path(OUTPUT))
    async with site.database.write.begin() as session:
        await requests.add(session, number, portion(done, range(1, 4)))
    await site.delete_file(OUTPUT)

    found = await asyncio.to_thread(inspect, site.settings.data_dir, now=time.time() + 1e6)

    # The rows of files that tests make say nothing true of their bytes.
    assert [it for it in found.findings if it.kind != Kind.DAMAGED_BYTES] == []


async def test_cancelled_while_it_is_validated_it_keeps_what_it_has_taken_over(
    site: Site, number: int
) -> None:
    await site.cancel(number)

    batch = await site.run(number)

    assert batch.status == "cancelled"
    assert await site.counts(number) == (4, 2, 0)
    assert ids(await site.output(number)) == ["row-1", "row-3"]
    assert ids(await site.errors(number)) == ["row-2", "row-4"]
    assert site.standin.stats.received == 0


async def test_without_the_bytes_of_the_answers_it_fails(site: Site, number: int) -> None:
    await site.blobs.delete(OUTPUT)

    await site.intake.validate_once()

    batch = await site.batch(number)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert "the answers to take over" in batch.errors[0]["message"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.replace(b'{"', b"{\x80", 1),
        lambda content: content.replace(b'"row-3"', b'"row-\xff"'),
        lambda content: content.replace(b'"row-3"', b'"row-5"'),
        lambda content: content.splitlines(keepends=True)[0],
        lambda content: content[:-10],
        lambda content: b"",
        lambda content: content + content,
    ],
    ids=["no JSON", "no text", "another id", "a line less", "half a line", "nothing", "twice"],
)
async def test_answers_that_are_not_what_they_were_are_not_run_again(
    site: Site, number: int, spoil: Callable[[bytes], bytes]
) -> None:
    path = site.blobs.path(OUTPUT)
    path.write_bytes(spoil(path.read_bytes()))

    batch = await site.run(number)

    assert batch.status == "failed"
    assert batch.errors == [NO_INPUT.as_json()]
    assert site.standin.stats.received == 0
    assert await rows.states(site.database, number) == []


async def test_the_bytes_it_reads_outlive_their_file_and_a_restart(site: Site, number: int) -> None:
    await site.delete_file(OUTPUT)
    await site.delete_file(INPUT)

    await site.janitor.recover()
    assert site.blobs_on_disk() == {INPUT, OUTPUT}
    await site.run(number)
    assert site.blobs_on_disk() == {"file-out"}


async def test_an_answer_that_was_taken_over_is_never_leased(site: Site, number: int) -> None:
    await site.intake.validate_once()

    leased = await rows.lease(site.database, number)

    assert [lease.line for lease in leased] == [2, 4]
    found = await rows.outcomes(site.database, number)
    assert [it.line for it in found if it.state == RequestState.COMPLETED and it.answer] == [1, 3]
