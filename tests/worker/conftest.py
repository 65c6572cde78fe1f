from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from openai import OpenAI

from batch_api.settings import DEMO_MODEL
from tests.worker.fake_engine import FakeEngine
from tests.worker.process import WorkerProcess
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


@pytest.fixture(scope="session")
def real_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """Of a worker with the bundled model, one for all tests that leave its options alone."""
    options = ("--model", str(DEMO_MODEL), "--allowed-host", "Workers")
    with (
        WorkerProcess(tmp_path_factory.mktemp("real"), *options) as worker,
        OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client
