from random import Random

from hypothesis import given
from hypothesis import strategies as st

from batch_api.engine.packer import Packer
from batch_api.engine.sequence import Priority
from batch_api.engine.texts import Row, Texts

MAX_ROWS, MAX_TOKENS = 8, 200


def _packer() -> Packer:
    return Packer(max_rows=MAX_ROWS, max_tokens=MAX_TOKENS)


def _texts(*lengths: int, priority: Priority = Priority.INTERACTIVE) -> Texts:
    return Texts([[1] * length for length in lengths], priority=priority)


def _passes(packer: Packer) -> list[list[Row]]:
    passes = []
    while packer.has_work:
        passes.append(packer.next())
    return passes


def _lengths(rows: list[Row]) -> list[int]:
    return sorted(row.length for row in rows)


@given(st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=20), max_size=8))
def test_each_text_runs_once_in_passes_that_keep_their_bounds(requests: list[list[int]]) -> None:
    packer = _packer()
    added = [_texts(*lengths) for lengths in requests]
    for texts in added:
        packer.add(texts)

    passes = _passes(packer)

    ran = [(row.texts, row.index) for rows in passes for row in rows]
    assert len(ran) == len(set(ran))
    assert set(ran) == {(texts, row.index) for texts in added for row in texts.rows}
    for rows in passes:
        padded = len(rows) * max(_lengths(rows))
        assert 0 < len(rows) <= MAX_ROWS
        assert padded <= MAX_TOKENS or len(rows) == 1
        assert padded - sum(_lengths(rows)) <= max(64, sum(_lengths(rows)) / 4)


def test_texts_of_several_requests_share_a_pass() -> None:
    packer = _packer()
    for length in (10, 11, 12):
        packer.add(_texts(length))

    assert _lengths(packer.next()) == [10, 11, 12]


def test_neighbours_by_length_share_a_pass_whatever_came_first() -> None:
    packer = _packer()
    packer.add(_texts(150, 10, 149, 9))

    assert [_lengths(rows) for rows in _passes(packer)] == [[150], [9, 10], [149]]


def test_the_oldest_text_is_in_the_next_pass_however_many_fit_better() -> None:
    packer = _packer()
    draw = Random(0)
    oldest = _texts(97)
    packer.add(oldest)
    packer.add(_texts(*(draw.randint(1, 40) for _ in range(500))))

    assert oldest.rows[0] in packer.next()


def test_interactive_texts_go_first_also_in_the_middle_of_a_batch_s() -> None:
    packer = _packer()
    packer.add(_texts(*[100] * 10, priority=Priority.BATCH))
    assert _lengths(packer.next()) == [100, 100]

    packer.add(_texts(7))

    assert _lengths(packer.next()) == [7]
    assert _lengths(packer.next()) == [100, 100]


def test_what_is_removed_never_runs() -> None:
    packer = _packer()
    gone, left = _texts(5, 6), _texts(5)
    packer.add(gone)
    packer.add(left)

    packer.remove(gone)

    assert _passes(packer) == [left.rows]


def test_a_text_longer_than_a_pass_runs_alone() -> None:
    packer = _packer()
    packer.add(_texts(5, 1000))

    assert [_lengths(rows) for rows in _passes(packer)] == [[5], [1000]]
