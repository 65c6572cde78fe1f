"""How a history becomes columns."""

from batch_api.dashboard.series import series, summary
from batch_api.store.progress import Delay, History, Point


def test_what_is_kept_no_longer_is_unknown_and_not_zero() -> None:
    history = History([Point(60, 30, 0, 0, 0)], [])

    found = series(history, since=0, until=130, step=30, kept_since=50)

    assert found.times == [0, 30, 60, 90, 120]
    assert found.completed == [None, None, 1.0, 0.0, 0.0]


def test_the_first_step_of_a_batch_begins_with_it_and_the_last_ends_with_it() -> None:
    history = History([Point(60, 8, 0, 0, 0), Point(70, 30, 0, 0, 0), Point(80, 4, 0, 0, 0)], [])

    found = series(history, since=66, until=82, step=10, shortest=1)

    assert found.times == [66, 70, 80]
    assert found.completed == [2.0, 3.0, 2.0]


def test_a_last_step_that_has_only_begun_is_left_out() -> None:
    history = History([Point(60, 8, 0, 0, 0), Point(70, 3, 0, 0, 0)], [])

    assert series(history, since=66, until=79, step=10).times == [66]


def test_latencies_of_a_minute_are_told_once() -> None:
    minutes = [Delay(60, 1.0, 2.0, 3.0), Delay(120, 4.0, 5.0, 6.0)]

    found = series(History([], minutes), since=96, until=150, step=10)

    assert found.times == [96, 100, 110, 120, 130, 140]
    assert found.p50 == [1.0, None, None, 4.0, None, None]
    assert found.p99 == [3.0, None, None, 6.0, None, None]
    assert summary(found.p50).latest == 4.0


def test_latencies_of_longer_steps_are_each_step_s_own() -> None:
    found = series(
        History([], [Delay(300, 1.0, 2.0, 3.0), Delay(600, 4.0, 5.0, 6.0)]),
        since=310,
        until=1000,
        step=300,
    )

    assert found.p95 == [2.0, 5.0, None]
