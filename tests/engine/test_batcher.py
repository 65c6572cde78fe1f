"""Who runs in the next step: no torch in these tests."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from batch_api.engine.batcher import Batcher, Chunk
from batch_api.engine.sequence import Priority, SamplingOptions, Sequence


def sequence(size: int, priority: Priority = Priority.BATCH) -> Sequence:
    return Sequence([1] * size, SamplingOptions(max_tokens=100), priority=priority)


def run(batcher: Batcher) -> list[Chunk]:
    """One step in which every finished chunk gets a token."""
    chunks = batcher.next()
    ending = [chunk.sequence for chunk in chunks if chunk.is_last]
    batcher.advance(chunks)
    for each in ending:
        each.tokens.append(7)
    return chunks


def test_batcher_and_sequence_import_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import batch_api.engine.batcher, batch_api.engine.sequence, batch_api.engine.errors"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prompts_are_cut_to_the_budget_and_go_on_in_the_next_step() -> None:
    batcher = Batcher(max_sequences=4, prefill_budget=7)
    first, second = sequence(10), sequence(5)
    batcher.add(first)
    batcher.add(second)

    steps = [[(each.sequence, each.start, each.stop) for each in run(batcher)] for _ in range(3)]

    assert steps[0] == [(first, 0, 7)]
    assert steps[1] == [(first, 7, 10), (second, 0, 4)]
    assert steps[2] == [(first, 10, 11), (second, 4, 5)]


def test_decoding_sequences_run_in_every_step_whatever_the_budget() -> None:
    batcher = Batcher(max_sequences=5, prefill_budget=3)
    decoding = [sequence(1) for _ in range(3)]
    for each in decoding:
        batcher.add(each)
    run(batcher)
    batcher.add(sequence(50))

    chunks = run(batcher)

    assert [chunk.sequence for chunk in chunks[:3]] == decoding
    assert [chunk.size for chunk in chunks] == [1, 1, 1, 3]


def test_interactive_sequences_join_before_batch_sequences_that_waited_longer() -> None:
    batcher = Batcher(max_sequences=1, prefill_budget=10)
    running, waiting = sequence(2), sequence(2)
    interactive = sequence(2, Priority.INTERACTIVE)
    batcher.add(running)
    run(batcher)
    batcher.add(waiting)
    batcher.add(interactive)

    batcher.remove(running)

    assert [chunk.sequence for chunk in run(batcher)] == [interactive]


def test_an_interactive_prompt_goes_ahead_of_a_batch_prompt_that_has_begun() -> None:
    batcher = Batcher(max_sequences=2, prefill_budget=4)
    long, interactive = sequence(20), sequence(3, Priority.INTERACTIVE)
    batcher.add(long)
    run(batcher)
    batcher.add(interactive)

    assert [(each.sequence, each.size) for each in run(batcher)] == [(interactive, 3), (long, 1)]


def test_batch_sequences_leave_slots_free_that_only_interactive_ones_take() -> None:
    batcher = Batcher(max_sequences=32, prefill_budget=100)
    for _ in range(40):
        batcher.add(sequence(1))
    run(batcher)
    interactive = [sequence(1, Priority.INTERACTIVE) for _ in range(3)]
    for each in interactive:
        batcher.add(each)

    joined = [chunk.sequence for chunk in run(batcher) if chunk.start == 0]

    assert (batcher.running, batcher.waiting) == (32, 11)
    assert joined == interactive[:2]


def test_interactive_sequences_may_take_every_slot() -> None:
    batcher = Batcher(max_sequences=4, prefill_budget=100)
    for _ in range(4):
        batcher.add(sequence(1, Priority.INTERACTIVE))
    batcher.add(sequence(1))

    run(batcher)

    assert (batcher.running, batcher.waiting) == (4, 1)


def test_a_lone_slot_is_not_kept_from_batch_sequences() -> None:
    batcher = Batcher(max_sequences=1, prefill_budget=100)
    batcher.add(sequence(1))

    assert len(run(batcher)) == 1


def test_equal_priorities_join_by_arrival() -> None:
    batcher = Batcher(max_sequences=4, prefill_budget=100)
    arrived = [sequence(2) for _ in range(3)]
    for each in arrived:
        batcher.add(each)

    assert [chunk.sequence for chunk in run(batcher)] == arrived


def test_a_removed_sequence_frees_its_slot_for_the_next_step() -> None:
    batcher = Batcher(max_sequences=1, prefill_budget=10)
    first, second = sequence(2), sequence(2)
    batcher.add(first)
    batcher.add(second)
    run(batcher)
    slot = first.slot

    batcher.remove(first)

    (chunk,) = run(batcher)
    assert (chunk.sequence, chunk.slot) == (second, slot)


def test_removing_twice_or_while_waiting_does_no_harm() -> None:
    batcher = Batcher(max_sequences=1, prefill_budget=10)
    first, waiting = sequence(2), sequence(2)
    batcher.add(first)
    batcher.add(waiting)
    run(batcher)

    for each in (first, first, waiting, waiting):
        batcher.remove(each)

    assert (batcher.running, batcher.waiting, batcher.next()) == (0, 0, [])


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    slots=st.integers(1, 5),
    budget=st.integers(1, 30),
    interactive=st.sets(st.integers(0, 11)),
)
def test_every_position_runs_once_and_in_order(
    sizes: list[int], slots: int, budget: int, interactive: set[int]
) -> None:
    batcher = Batcher(max_sequences=slots, prefill_budget=budget)
    priorities = [Priority(index not in interactive) for index in range(len(sizes))]
    sequences = [sequence(size, each) for size, each in zip(sizes, priorities, strict=True)]
    for each in sequences:
        batcher.add(each)
    seen: dict[Sequence, int] = dict.fromkeys(sequences, 0)

    while batcher.running or batcher.waiting:
        chunks = run(batcher)
        assert len({chunk.slot for chunk in chunks}) == len(chunks)
        assert sum(chunk.size for chunk in chunks if chunk.stop <= len(chunk.sequence.prompt)) <= (
            budget
        )
        for chunk in chunks:
            assert chunk.start == seen[chunk.sequence]
            seen[chunk.sequence] = chunk.stop
            if len(chunk.sequence.tokens) == 3:
                batcher.remove(chunk.sequence)

    assert seen == {each: len(each.prompt) + 2 for each in sequences}
