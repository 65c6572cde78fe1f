"""What tests that kill servers share."""

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    """Each run takes other moments; `CRASH_SEED` chooses them."""
    seed = int(os.environ.get("CRASH_SEED") or random.randrange(2**32))
    print(f"CRASH_SEED={seed}")  # pytest shows it if the test fails
    return seed
