"""The lifecycle is said three times: in a dict, in CHECK constraints, in a diagram."""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import CheckConstraint

from batch_api.lifecycle import FINAL_STATES, FINAL_STATUSES, BatchStatus, RequestState
from batch_api.store.tables import BatchRow, RequestRow, Table

Word = TypeVar("Word", BatchStatus, RequestState)

ARCHITECTURE = Path(__file__).parents[1] / "ARCHITECTURE.md"

STATUSES = {
    BatchStatus.VALIDATING: {"in_progress", "failed", "cancelling"},
    BatchStatus.IN_PROGRESS: {"finalizing", "cancelling"},
    BatchStatus.FINALIZING: {"completed", "expired", "cancelling"},
    BatchStatus.CANCELLING: {"cancelled"},
    BatchStatus.FAILED: set(),
    BatchStatus.COMPLETED: set(),
    BatchStatus.EXPIRED: set(),
    BatchStatus.CANCELLED: set(),
}
STATES = {
    RequestState.PENDING: {"leased", "cancelled", "expired"},
    RequestState.LEASED: {"pending", "completed", "failed", "cancelled", "expired"},
    RequestState.COMPLETED: set(),
    RequestState.FAILED: set(),
    RequestState.CANCELLED: set(),
    RequestState.EXPIRED: set(),
}


@pytest.mark.parametrize("status", BatchStatus)
def test_a_batch_may_become_what_openai_says_and_nothing_else(status: BatchStatus) -> None:
    assert {new for new in BatchStatus if status.can_become(new)} == STATUSES[status]


@pytest.mark.parametrize("state", RequestState)
def test_a_request_may_become_what_its_lease_allows(state: RequestState) -> None:
    assert {new for new in RequestState if state.can_become(new)} == STATES[state]


def test_final_is_what_nothing_follows() -> None:
    assert {status for status in BatchStatus if status.is_final} == FINAL_STATUSES
    assert {"completed", "failed", "expired", "cancelled"} == FINAL_STATUSES
    assert {state for state in RequestState if state.is_final} == FINAL_STATES
    assert {"completed", "failed", "expired", "cancelled"} == FINAL_STATES


@pytest.mark.parametrize("status", BatchStatus)
def test_every_status_can_reach_a_final_one(status: BatchStatus) -> None:
    reached = {status}
    for _ in BatchStatus:
        reached |= {new for old in reached for new in BatchStatus if old.can_become(new)}

    assert reached & FINAL_STATUSES


@pytest.mark.parametrize(
    ("table", "constraint", "words"),
    [(BatchRow, "ck_batches_status", BatchStatus), (RequestRow, "ck_requests_state", RequestState)],
)
def test_the_database_knows_the_same_words(
    table: type[Table], constraint: str, words: type[StrEnum]
) -> None:
    assert set(re.findall(r"'(\w+)'", check(table, constraint))) == set(words)


def test_the_database_wants_a_moment_for_every_final_status() -> None:
    said = check(BatchRow, "ck_batches_final_moment")

    assert dict(re.findall(r"status != '(\w+)' OR (\w+) IS NOT NULL", said)) == {
        status: f"{status}_at" for status in FINAL_STATUSES
    }


def test_the_database_lets_only_leased_requests_have_a_lease() -> None:
    said = check(RequestRow, "ck_requests_lease")

    assert said == f"(state = '{RequestState.LEASED}') = (leased_until IS NOT NULL)"


def test_the_diagrams_show_the_same_moves() -> None:
    batch, request = diagrams()

    assert batch == moves(BatchStatus, BatchStatus.can_become)
    assert request == moves(RequestState, RequestState.can_become)


def check(table: type[Table], name: str) -> str:
    constraints = table.metadata.tables[table.__tablename__].constraints
    (found,) = (it for it in constraints if it.name == name)
    assert isinstance(found, CheckConstraint)
    return str(found.sqltext)


def diagrams() -> list[set[tuple[str, str]]]:
    blocks = re.findall(r"```mermaid\s+stateDiagram-v2\n(.*?)```", ARCHITECTURE.read_text(), re.S)
    return [set(re.findall(r"^\s*(\w+) --> (\w+)", block, re.M)) for block in blocks]


def moves(words: type[Word], may: Callable[[Word, Word], bool]) -> set[tuple[str, str]]:
    return {(old.value, new.value) for old in words for new in words if may(old, new)}
