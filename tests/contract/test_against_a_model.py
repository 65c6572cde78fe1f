"""Files and batches through the SDK, held against a plain model of what they must be.

hypothesis finds the order of calls; the server is a process that also ends and dies in between.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    precondition,
    rule,
    run_state_machine_as_test,
)
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from tests.server import Server, StandinProcess
from tests.standin import HANG, MODEL, Fault, answer_to

CHAT = "/v1/chat/completions"
WAIT_SECONDS = 60
REFUSED = Fault(status=400)
NONSENSE = b"nonsense\n"


@dataclass
class ModelFile:
    content: bytes
    purpose: str
    name: str


@dataclass(frozen=True)
class Input:
    """The lines of a batch, by how the stand-in answers them."""

    good: int = 0
    refused: int = 0
    hanging: int = 0
    is_valid: bool = True

    @property
    def faults(self) -> list[Fault | None]:
        return [None] * self.good + [REFUSED] * self.refused + [HANG] * self.hanging

    @property
    def total(self) -> int:
        return len(self.faults)

    @property
    def content(self) -> bytes:
        lines = [line(number, fault) for number, fault in enumerate(self.faults)]
        return b"".join(lines) + (b"" if self.is_valid else NONSENSE)


def line(number: int, fault: Fault | None) -> bytes:
    messages = [{"role": "user", "content": f"{fault or ''}text {number}"}]
    body = {"model": MODEL, "messages": messages}
    return (
        json.dumps(
            {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}
        ).encode()
        + b"\n"
    )


INPUTS = st.one_of(
    st.builds(Input, good=st.integers(1, 30), refused=st.integers(0, 3)),
    st.builds(Input, good=st.integers(0, 5), hanging=st.just(1)),
    st.builds(Input, good=st.integers(1, 3), is_valid=st.just(False)),
)


@dataclass
class ModelBatch:
    input: Input
    metadata: dict[str, str]
    is_cancelled: bool = False
    """The server said so."""
    seen: Batch | None = None
    """What it said last."""


@dataclass
class Model:
    files: dict[str, ModelFile] = field(default_factory=dict)
    """Those that there are, by id: the oldest first."""
    batches: dict[str, ModelBatch] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    """Of files, also of deleted ones."""


class Site:
    """One server for all examples: each leaves it empty."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        standin = stack.enter_context(StandinProcess(folder, delay_ms=5, jitter_ms=20))
        settings = {"cancel_grace_seconds": 0, "shutdown_grace_seconds": 0, "max_in_flight": 8}
        self.server = stack.enter_context(Server(folder, standin.url, settings=settings))
        self.client = self.server.client()

    def restart(self, *, in_peace: bool) -> None:
        self.client.close()
        if in_peace:
            assert self.server.terminate() == 0
        else:
            self.server.kill()
        self.server.start()
        self.client = self.server.client()


class Machine(RuleBasedStateMachine):
    site: ClassVar[Site]
    most_restarts: ClassVar[int]

    files = Bundle("files")
    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.restarts_left = self.most_restarts

    @property
    def client(self) -> OpenAI:
        return self.site.client

    @rule(target=files, input=INPUTS, name=st.text(min_size=1, max_size=20))
    def create_input(self, input: Input, name: str) -> str:
        name = f"in {name.encode(errors='replace').hex()}.jsonl"
        file = self.client.files.create(file=(name, input.content), purpose="batch")
        self.model.files[file.id] = ModelFile(input.content, "batch", name)
        self.model.inputs[file.id] = input
        self.check_file(file.id)
        return file.id

    @rule(target=files, content=st.binary(max_size=2_000))
    def create_other_file(self, content: bytes) -> str:
        file = self.client.files.create(file=("other", content), purpose="user_data")
        self.model.files[file.id] = ModelFile(content, "user_data", "other")
        self.check_file(file.id)
        return file.id

    @rule(id=files)
    def check_file(self, id: str) -> None:
        known = self.model.files.get(id)
        if known is None:
            for call in (self.client.files.retrieve, self.client.files.content):
                with pytest.raises(NotFoundError):
                    call(id)
            return
        file = self.client.files.retrieve(id)
        assert (file.bytes, file.purpose) == (len(known.content), known.purpose)
        assert file.filename == known.name
        assert self.client.files.content(id).read() == known.content

    @rule(id=consumes(files))
    def delete_file(self, id: str) -> None:
        if self.model.files.pop(id, None) is None:
            with pytest.raises(NotFoundError):
                self.client.files.delete(id)
        else:
            assert self.client.files.delete(id).deleted
        self.check_file(id)

    @rule(target=batches, file_id=files, label=st.text(max_size=10))
    def create_batch(self, file_id: str, label: str) -> str:
        metadata = {"label": label.encode(errors="replace").hex()}
        known = self.model.files.get(file_id)
        expected = NotFoundError if known is None else BadRequestError
        if known is None or known.purpose != "batch":
            with pytest.raises(expected):
                self.start(file_id, metadata)
            return "batch_that_was_never_made"
        batch = self.start(file_id, metadata)
        self.model.batches[batch.id] = ModelBatch(self.model.inputs[file_id], metadata)
        self.look(batch)
        return batch.id

    def start(self, file_id: str, metadata: dict[str, str]) -> Batch:
        return self.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=metadata,
        )

    @rule(id=batches)
    def check_batch(self, id: str) -> None:
        if id in self.model.batches:
            self.look(self.client.batches.retrieve(id))
        else:
            with pytest.raises(NotFoundError):
                self.client.batches.retrieve(id)

    @rule(id=batches)
    def cancel(self, id: str) -> None:
        known = self.model.batches.get(id)
        if known is None:
            with pytest.raises(NotFoundError):
                self.client.batches.cancel(id)
            return
        try:
            batch = self.client.batches.cancel(id)
        except ConflictError:
            self.check_batch(id)
            assert known.seen is not None
            assert known.seen.status in ("completed", "failed")
            return
        assert batch.status in ("cancelling", "cancelled")
        known.is_cancelled = True
        self.look(batch)

    @rule(id=batches)
    def wait(self, id: str) -> None:
        known = self.model.batches.get(id)
        if known is None or (known.input.hanging and not known.is_cancelled):
            return
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.is_over(known):
            assert time.monotonic() < deadline, known
            time.sleep(0.02)
            self.check_batch(id)

    @rule(id=batches)
    def delete_batch(self, id: str) -> None:
        known = self.model.batches.get(id)
        if known is None:
            with pytest.raises(NotFoundError):
                self.delete(id)
            return
        self.check_batch(id)
        if self.is_over(known):
            self.delete(id)
            del self.model.batches[id]
            self.check_batch(id)
        elif known.input.hanging and not known.is_cancelled:
            with pytest.raises(ConflictError):
                self.delete(id)

    def delete(self, id: str) -> None:
        self.client.delete(f"/batches/{id}", cast_to=object)

    @rule(limit=st.integers(1, 4), oldest_first=st.booleans())
    def list_files(self, limit: int, oldest_first: bool) -> None:
        order: Literal["asc", "desc"] = "asc" if oldest_first else "desc"
        listed = [file.id for file in self.client.files.list(limit=limit, order=order)]
        if not oldest_first:
            listed.reverse()
        assert len(listed) == len(set(listed))
        self.check_all_batches()  # one may have published its files just now
        ours = [id for id in self.model.files if self.model.files[id].purpose != "batch_output"]
        assert [id for id in listed if id in ours] == ours
        assert set(listed) <= set(self.model.files)

    @rule(limit=st.integers(1, 4))
    def list_batches(self, limit: int) -> None:
        listed = list(self.client.batches.list(limit=limit))
        assert [batch.id for batch in listed] == list(self.model.batches)[::-1]
        for batch in listed:
            self.look(batch)

    @precondition(lambda self: self.restarts_left > 0)
    @rule(in_peace=st.booleans())
    def restart(self, in_peace: bool) -> None:
        self.restarts_left -= 1
        self.site.restart(in_peace=in_peace)
        self.check_all_batches()
        for id in list(self.model.files):
            self.check_file(id)

    def check_all_batches(self) -> None:
        for id in list(self.model.batches):
            self.check_batch(id)

    def look(self, batch: Batch) -> None:
        """A status is reached from the one before, and a final one stays as it is."""
        known = self.model.batches[batch.id]
        before, known.seen = known.seen, batch
        assert batch.metadata == known.metadata
        if before is not None and BatchStatus(before.status).is_final:
            assert batch == before
            return
        assert before is None or reaches(BatchStatus(before.status), BatchStatus(batch.status))
        if known.is_cancelled:
            assert batch.status in ("cancelling", "cancelled")
        if self.is_over(known):
            self.check_end(batch, known)

    def check_end(self, batch: Batch, known: ModelBatch) -> None:
        if batch.status == "failed":
            assert not known.input.is_valid
            assert batch.errors is not None
            assert [error.line for error in batch.errors.data or ()] == [known.input.total + 1]
            return
        assert batch.status == ("cancelled" if known.is_cancelled else "completed")
        if not known.input.is_valid:
            return
        answered, others = self.result(batch.output_file_id), self.result(batch.error_file_id)
        self.check_lines(known.input, answered, others)
        assert batch.request_counts is not None
        if batch.status == "completed":
            counts = (known.input.total, known.input.good, known.input.refused)
            found = batch.request_counts
            assert (found.total, found.completed, found.failed) == counts
            assert (len(answered), len(others)) == (known.input.good, known.input.refused)

    def result(self, id: str | None) -> list[dict[str, Any]]:
        """The lines of a file that is new to the model."""
        if id is None:
            return []
        content = self.client.files.content(id).read()
        name = self.client.files.retrieve(id).filename
        self.model.files[id] = ModelFile(content, "batch_output", name)
        return [json.loads(each) for each in content.splitlines()]

    def check_lines(
        self, input: Input, answered: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
    ) -> None:
        """Each of the input is there once, in its order; or none, if it was never read."""
        numbers = [number_of(each) for each in answered], [number_of(each) for each in others]
        assert numbers == (sorted(numbers[0]), sorted(numbers[1]))
        assert sorted([*numbers[0], *numbers[1]]) in (list(range(input.total)), [])
        for each in answered:
            message = each["response"]["body"]["choices"][0]["message"]
            assert message["content"] == answer_to(f"text {number_of(each)}")
            assert input.faults[number_of(each)] is None

    @staticmethod
    def is_over(known: ModelBatch) -> bool:
        return known.seen is not None and BatchStatus(known.seen.status).is_final

    def teardown(self) -> None:
        """Leave nothing, which takes most of what there is once more."""
        for id, known in list(self.model.batches.items()):
            if not self.is_over(known):
                self.cancel(id)
            self.wait(id)
            self.delete_batch(id)
        for id in list(self.model.files):
            self.delete_file(id)
        self.list_batches(limit=4)
        self.list_files(limit=4, oldest_first=True)


def number_of(written: dict[str, Any]) -> int:
    return int(written["custom_id"].removeprefix("row-"))


def reaches(old: BatchStatus, new: BatchStatus) -> bool:
    return old == new or any(reaches(step, new) for step in BatchStatus if old.can_become(step))


@pytest.fixture(scope="module")
def machine() -> Iterator[type[Machine]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Machine.site = Site(Path(folder), stack)
        yield Machine
        Machine.site.client.close()


def look_for_trouble(machine: type[Machine], *, examples: int, steps: int, restarts: int) -> None:
    """`restarts`: of each example, at most; they take the most time."""
    machine.most_restarts = restarts
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            phases=[Phase.generate],  # to look for a shorter way would take too long
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_api_agrees_with_a_plain_model_of_it(machine: type[Machine]) -> None:
    look_for_trouble(machine, examples=3, steps=15, restarts=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_api_agrees_with_a_plain_model_of_it_for_long(machine: type[Machine]) -> None:
    look_for_trouble(machine, examples=20, steps=40, restarts=4)
