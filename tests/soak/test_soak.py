"""A short soak; `make soak` runs longer ones."""

import os
import random
from pathlib import Path

import pytest

from tests.soak.soak import Soak

_MINUTES = 0.75


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_promise_holds_whatever_is_killed_and_whoever_talks_nonsense(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(2**32))
    print(f"SOAK_SEED={seed}")  # pytest shows it if the test fails

    outcome = Soak(tmp_path, seed=seed, minutes=_MINUTES).run()

    assert not outcome.complaints, outcome
    assert outcome.stops.total() > 0
    assert outcome.batches["completed"] > 0
    print(outcome)
