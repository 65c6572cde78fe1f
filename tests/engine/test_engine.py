"""What the engine promises, on small random models."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_api.engine.engine import Engine, PromptTooLong
from batch_api.engine.sequence import FinishReason, Priority, SamplingOptions, Sequence
from tests.engine.conftest import END, finish, greedy

VOCABULARY = 320


def mixed(count: int, seed: int = 0, max_tokens: int = 30) -> list[Sequence]:
    """Greedy sequences with prompts and answers of all sizes."""
    random = Random(seed)
    return [
        greedy(
            [random.randrange(1, VOCABULARY) for _ in range(random.randint(1, 60))],
            random.randint(1, max_tokens),
        )
        for _ in range(count)
    ]


def again(sequence: Sequence) -> Sequence:
    return Sequence(sequence.prompt, sequence.options, priority=sequence.priority)


def alone(engine: Engine, sequence: Sequence) -> list[int]:
    """The same sequence, run with nobody beside it."""
    copy = again(sequence)
    finish(engine, copy)
    return copy.tokens


@pytest.mark.slow
def test_64_requests_at_once_get_the_answers_they_get_one_by_one(llama: Path) -> None:
    engine = Engine.load(str(llama), dtype="float32", max_sequences=64, max_length=128)
    sequences = mixed(64)

    finish(engine, *sequences)

    assert [each.tokens for each in sequences] == [alone(engine, each) for each in sequences]


@pytest.mark.parametrize("budget", [1, 7, 1000])
def test_chunks_of_prompts_change_no_answer(llama: Path, budget: int) -> None:
    chunked = Engine.load(
        str(llama), dtype="float32", max_sequences=5, max_length=128, prefill_budget=budget
    )
    sequences, expected = mixed(12), mixed(12)
    finish(Engine.load(str(llama), dtype="float32", max_sequences=1, max_length=128), *expected)

    finish(chunked, *sequences)

    assert [each.tokens for each in sequences] == [each.tokens for each in expected]


def test_the_same_seed_gives_the_same_answer_alone_and_in_a_crowd(engine: Engine) -> None:
    options = SamplingOptions(max_tokens=20, temperature=1.0, top_p=0.9, seed=42)
    seeded = Sequence([5, 6, 7], options)
    crowd = [
        Sequence([index + 1] * 9, SamplingOptions(max_tokens=15, temperature=1.5))
        for index in range(12)
    ]

    finish(engine, *crowd[:5], seeded, *crowd[5:])

    assert seeded.tokens == alone(engine, seeded)
    assert seeded.tokens != alone(engine, greedy(seeded.prompt, 20))


def test_different_seeds_give_different_answers(engine: Engine) -> None:
    sequences = [
        Sequence([5, 6, 7], SamplingOptions(max_tokens=20, seed=seed, ignore_end=True))
        for seed in range(6)
    ]

    finish(engine, *sequences)

    assert len({tuple(each.tokens) for each in sequences}) == 6


def test_max_tokens_ends_an_answer(engine: Engine) -> None:
    sequence = greedy([9, 8, 7], 5, ignore_end=True)

    finish(engine, sequence)

    assert (len(sequence.tokens), sequence.finish_reason) == (5, FinishReason.LENGTH)


def test_the_cache_end_ends_an_answer(engine: Engine) -> None:
    sequence = greedy([9] * 100, 1000, ignore_end=True)

    finish(engine, sequence)

    assert sequence.length == engine.max_length == 128
    assert sequence.finish_reason is FinishReason.LENGTH


def test_the_end_token_ends_an_answer_and_does_not_show(engine: Engine) -> None:
    options = SamplingOptions(max_tokens=2000, temperature=5.0, seed=1)
    sequences = [Sequence([index + 1], options) for index in range(40)]

    texts = finish(engine, *sequences)

    stopped = [each for each in sequences if each.finish_reason is FinishReason.STOP]
    assert stopped
    assert all(each.tokens[-1] == 0 and 0 not in each.tokens[:-1] for each in stopped)
    assert not any(END in text for text in texts.values())


def test_the_texts_of_the_steps_are_the_answer(engine: Engine) -> None:
    sequences = mixed(20)

    texts = finish(engine, *sequences)

    for each in sequences:
        whole = engine.tokenizer.decode(each.tokens, skip_special_tokens=True)
        assert texts[each].replace("\ufffd", "") == str(whole).replace("\ufffd", "")


def test_a_stop_string_ends_an_answer_and_is_cut_wherever_tokens_split_it(engine: Engine) -> None:
    free = greedy([3, 1, 4, 1, 5], 30, ignore_end=True)
    whole = finish(engine, free)[free]
    for start in range(0, len(whole) - 4, 3):
        stop = whole[start : start + 4]
        stopped = greedy(free.prompt, 30, ignore_end=True, stop=("not there", stop))

        text = finish(engine, stopped)[stopped]

        assert text == whole[: whole.index(stop)]
        assert stopped.finish_reason is FinishReason.STOP
        assert len(stopped.tokens) <= len(free.tokens)


def test_a_prompt_that_does_not_fit_is_refused_and_not_cut(engine: Engine) -> None:
    with pytest.raises(PromptTooLong, match="128 tokens") as refused:
        engine.add(greedy([1] * 128))

    assert (refused.value.prompt_tokens, refused.value.max_length) == (128, 128)
    assert not engine.has_work
    fits = greedy([1] * 127, ignore_end=True)
    finish(engine, fits)
    assert len(fits.tokens) == 1


def test_an_interactive_sequence_joins_at_the_next_step_however_long_the_batch_runs(
    engine: Engine,
) -> None:
    options = SamplingOptions(max_tokens=100, temperature=0, ignore_end=True)
    batch = [Sequence([index + 1] * 5, options, priority=Priority.BATCH) for index in range(30)]
    interactive = Sequence([7, 7], options, priority=Priority.INTERACTIVE)
    for each in batch:
        engine.add(each)
    engine.step()
    assert (engine.running, engine.waiting) == (engine.max_sequences - 1, 23)

    engine.add(interactive)

    assert interactive in [delta.sequence for delta in engine.step()]
    assert (engine.running, engine.waiting) == (engine.max_sequences, 23)


def test_memory_is_taken_once_and_said_at_the_start(
    llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="batch_api.engine"):
        engine = Engine.load(str(llama), dtype="float32", max_sequences=4, max_length=64)
    (record,) = caplog.records
    cache = engine._model.cache
    before = [tensor.data_ptr() for tensor in cache.keys + cache.values]

    finish(engine, *mixed(20))

    assert [tensor.data_ptr() for tensor in cache.keys + cache.values] == before
    assert (record.getMessage(), record.sequences, record.length) == ("model loaded", 4, 64)  # type: ignore[attr-defined]
    heads, size, layers = 2, 8, 3
    assert cache.memory_bytes == 4 * 64 * heads * size * 2 * layers * 4
    assert engine.memory_bytes > cache.memory_bytes


def test_counts_follow_what_joins_and_leaves(engine: Engine) -> None:
    sequences = [greedy([1, 2], 3, ignore_end=True) for _ in range(10)]
    for each in sequences:
        engine.add(each)
    counts = [(engine.running, engine.waiting)]
    while engine.has_work:
        engine.step()
        counts.append((engine.running, engine.waiting))

    assert counts == [(0, 10), (8, 2), (8, 2), (0, 2), (2, 0), (2, 0), (0, 0)]
    assert engine.step() == []


def test_cancelling_is_idempotent_and_frees_the_slot_for_the_next_step(llama: Path) -> None:
    engine = Engine.load(str(llama), dtype="float32", max_sequences=1, max_length=64)
    first, waiting = greedy([1, 2, 3], ignore_end=True), greedy([4, 5, 6], ignore_end=True)
    engine.add(first)
    engine.add(waiting)
    engine.step()

    engine.cancel(first)
    engine.cancel(first)

    assert first.finish_reason is FinishReason.CANCELLED
    assert [delta.sequence for delta in engine.step()] == [waiting]
    engine.cancel(waiting)
    assert not engine.has_work
    finished = greedy([1], 1)
    finish(engine, finished)
    engine.cancel(finished)
    assert finished.finish_reason is not FinishReason.CANCELLED


@pytest.fixture(scope="module")
def small_engine(llama: Path) -> Engine:
    return Engine.load(
        str(llama), dtype="float32", max_sequences=3, max_length=96, prefill_budget=11
    )


@pytest.fixture(scope="module")
def answers(small_engine: Engine) -> list[list[int]]:
    return [alone(small_engine, each) for each in mixed(8, seed=5, max_tokens=12)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    joins=st.lists(st.integers(0, 15), min_size=8, max_size=8),
    leaves=st.dictionaries(st.integers(0, 7), st.integers(0, 25), max_size=6),
)
def test_whoever_joins_or_is_cancelled_at_whatever_step_the_others_answers_stay(
    small_engine: Engine, answers: list[list[int]], joins: list[int], leaves: dict[int, int]
) -> None:
    engine, sequences = small_engine, mixed(8, seed=5, max_tokens=12)
    for step in range(16 + 10):
        for index, each in enumerate(sequences):
            if joins[index] == step:
                engine.add(each)
            if leaves.get(index) == step and joins[index] <= step:
                engine.cancel(each)
        engine.step()
    finish(engine)

    for index, each in enumerate(sequences):
        if each.finish_reason is FinishReason.CANCELLED:
            assert each.tokens == answers[index][: len(each.tokens)]
        else:
            assert each.tokens == answers[index]
    assert (engine.running, engine.waiting) == (0, 0)


def test_bf16_answers_are_close_to_fp32_ones(llama: Path) -> None:
    half = Engine.load(str(llama), dtype="bfloat16", max_sequences=8, max_length=128)
    full = Engine.load(str(llama), dtype="float32", max_sequences=8, max_length=128)
    first_tokens = []
    for engine in (half, full):
        sequences = [greedy(each.prompt, 1) for each in mixed(40)]
        finish(engine, *sequences)
        first_tokens.append([each.tokens for each in sequences])

    same = sum(one == two for one, two in zip(*first_tokens, strict=True))
    assert half.dtype == "bfloat16"
    assert same >= 36


@pytest.mark.parametrize("temperature", [0, 1])
def test_numbers_that_are_not_finite_end_one_sequence_and_spare_its_neighbours_and_its_slot(
    llama: Path, temperature: float
) -> None:
    engine = Engine.load(str(llama), dtype="float32", max_sequences=2, max_length=64)
    neighbour, follower = greedy([5, 6, 7], 20), greedy([8, 9, 10, 11, 12], 20)
    expected = alone(engine, neighbour), alone(engine, follower)
    broken = Sequence([3, 4], SamplingOptions(max_tokens=9, temperature=temperature, logprobs=2))
    network: Any = engine._model.network
    network.get_input_embeddings().weight.data[4] = float("nan")

    texts = finish(engine, neighbour, broken, follower)

    assert broken.finish_reason is FinishReason.BROKEN
    assert texts[broken] == ""
    assert 4 not in expected[0] + expected[1]
    assert (neighbour.tokens, follower.tokens) == expected
