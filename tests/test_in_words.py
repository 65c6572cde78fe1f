"""How numbers and times are told."""

import pytest

from batch_api.in_words import (
    bytes_in_words,
    counted,
    error_in_words,
    exact_duration_in_words,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (-0.1, "0 ms"),
        (0.085, "85 ms"),
        (0.25, "250 ms"),
        (0.9996, "1.0 s"),
        (1.24, "1.2 s"),
        (10.4, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 01 s"),
        (7530, "2 h 05 min"),
        (86_400, "1 d"),
    ],
)
def test_durations_are_as_exact_as_is_of_use(seconds: float | None, words: str) -> None:
    assert exact_duration_in_words(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (40 * 2**30, "40 GiB"),
    ],
)
def test_sizes_have_the_unit_that_suits_them(count: int, words: str) -> None:
    assert bytes_in_words(count) == words


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "line", "0 lines"),
        (1, "line", "1 line"),
        (2, "line", "2 lines"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
    ],
)
def test_one_stands_alone(count: int, noun: str, words: str) -> None:
    assert counted(count, noun) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("[Errno 111] Connection refused"), "connection refused"),
        (OSError("All attempts failed.\nThe first: none"), "all attempts failed"),
        (OSError("EOF occurred in violation of protocol"), "EOF occurred in violation of protocol"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=repr,
)
def test_an_error_is_a_part_of_a_sentence(error: Exception, words: str) -> None:
    assert error_in_words(error) == words
