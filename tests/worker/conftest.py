from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import Worker, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Worker]:
    """One for all tests of a module, which do not break it."""
    async with serving(FakeEngine()) as it:
        yield it


@pytest.fixture
def engine(worker: Worker) -> FakeEngine:
    """The worker's, with no memory of other tests."""
    worker.engine.begun.clear()
    return worker.engine
