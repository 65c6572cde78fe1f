import pytest

from batch_api.plurals import counted


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
