"""How a history becomes columns."""

from batch_api.dashboard.series import series
from batch_api.store.progress import History, Point


def test_what_is_kept_no_longer_is_unknown_and_not_zero() -> None:
    history = History([Point(60, 30, 0, 0, 0)], [])

    found = series(history, since=0, until=130, step=30, kept_since=50)

    assert found.times == [0, 30, 60, 90, 120]
    assert found.completed == [None, None, 1.0, 0.0, 0.0]
