from collections.abc import AsyncIterator

import pytest

from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import Worker, serving


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def worker(engine: FakeEngine) -> AsyncIterator[Worker]:
    async with serving(engine) as it:
        yield it
