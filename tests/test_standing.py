"""How an upstream's circuit opens and closes, and how much it is given at once."""

import pytest

from batch_api.standing import Standing, Visit

MOST = 16


@pytest.fixture
def standing() -> Standing:
    return Standing(most=MOST)


def begin(standing: Standing) -> Visit:
    return standing.begin(is_batch=True)


def fail(standing: Standing, times: int) -> None:
    for _ in range(times):
        visit = begin(standing)
        standing.failed(visit)
        standing.end(visit)


def room(standing: Standing) -> int:
    """How many requests it takes at once now."""
    visits = []
    while standing.admits(0):
        visits.append(begin(standing))
    for visit in visits:
        standing.end(visit)
    return len(visits)


def test_three_troubles_in_a_row_open_the_circuit(standing: Standing) -> None:
    fail(standing, 2)
    assert (standing.is_open, standing.needs_proof, room(standing)) == (False, False, MOST)

    fail(standing, 1)
    assert (standing.is_open, standing.needs_proof, room(standing)) == (True, True, 1)


def test_an_answer_between_troubles_keeps_it_closed(standing: Standing) -> None:
    for _ in range(5):
        fail(standing, 2)
        standing.answered()

    assert not standing.is_open


def test_half_open_it_takes_one_request_until_that_is_answered(standing: Standing) -> None:
    fail(standing, 3)
    standing.proved()
    assert (standing.is_open, standing.needs_proof, room(standing)) == (True, False, 1)

    standing.answered()
    assert (standing.is_open, room(standing)) == (False, MOST)


def test_a_failure_while_half_open_asks_for_a_proof_again(standing: Standing) -> None:
    fail(standing, 3)
    standing.proved()
    fail(standing, 1)

    assert standing.needs_proof


def test_those_that_were_there_together_are_one_trouble(standing: Standing) -> None:
    together = [begin(standing) for _ in range(MOST)]
    for visit in together:
        standing.failed(visit)

    assert not standing.is_open


def test_silence_towards_everybody_opens_the_circuit_at_once(standing: Standing) -> None:
    standing.timed_out(begin(standing))

    assert standing.needs_proof


def test_silence_towards_one_while_another_is_answered_is_only_a_queue(standing: Standing) -> None:
    unlucky = begin(standing)
    standing.answered()
    standing.timed_out(unlucky)

    standing.end(unlucky)
    assert not standing.is_open
    assert room(standing) == MOST // 2


@pytest.mark.parametrize(("kept", "given"), [(12, 12), (8, 8), (2, 8), (0, 8)])
def test_after_refusals_it_is_given_as_many_as_it_kept_but_half_at_least(
    standing: Standing, kept: int, given: int
) -> None:
    together = [begin(standing) for _ in range(MOST)]
    standing.answered()
    for visit in together[kept:]:
        standing.refused(visit)
        standing.end(visit)
    for visit in together[:kept]:
        standing.end(visit)

    assert room(standing) == given


def test_refusals_before_the_first_answer_are_loading_and_narrow_nothing(
    standing: Standing,
) -> None:
    for _ in range(5):
        visit = begin(standing)
        standing.refused(visit)
        standing.end(visit)

    assert room(standing) == MOST


def test_what_was_taken_away_comes_back_with_answers(standing: Standing) -> None:
    unlucky = begin(standing)
    standing.answered()
    standing.refused(unlucky)
    standing.end(unlucky)
    for _ in range(MOST * MOST):
        standing.answered()

    assert room(standing) == MOST


def test_rests_grow_to_a_bound(standing: Standing) -> None:
    lengths = []
    for _ in range(20):
        visit = begin(standing)
        standing.failed(visit)
        lengths.append(round(standing.rests_until - visit.began, 1))
        standing.end(visit)

    assert lengths[:4] == [0.1, 0.2, 0.4, 0.8]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 30.0
