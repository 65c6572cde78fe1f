from collections.abc import Iterator

import pytest

from tests.client.scripted import Scripted


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server
