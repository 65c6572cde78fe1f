"""One server for the whole run, in an environment of its own; the clients are in this one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports them: neither asks the network, nor tells it anything.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("serving")
    python = os.environ.get("SERVER_PYTHON", ROOT / ".venv/bin/python")
    with subprocess.Popen(
        [python, "-m", "tests.clients.serving", folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:  # leaving closes its input, which ends it
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        assert url, "the server doesn't start"
        yield url
