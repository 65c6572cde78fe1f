"""A server tells of a batch, and the receiver in the README understands it as it is printed."""

import http.client
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.job import Job
from tests.receiver import SECRET, Receiver
from tests.server import Command, Server, StandinProcess, free_port

pytestmark = pytest.mark.slow

README = Path(__file__).parents[1] / "README.md"
_CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


class PrintedReceiver(Command):
    """What the README prints, on another port."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        program = folder / "receiver.py"
        program.write_text(_printed().replace("9000", str(port)))
        super().__init__(
            [sys.executable, str(program)],
            log=folder / "receiver.log",
            port=port,
            environment={"OPENAI_WEBHOOK_SECRET": SECRET},
        )

    def _is_ready(self) -> bool:
        return self.status_of(b"{}") == 400

    def status_of(self, forged: bytes) -> int | None:
        headers = {
            "webhook-id": "evt_forged",
            "webhook-timestamp": str(int(time.time())),
            "webhook-signature": "v1,forged",
        }
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]))
        try:
            connection.request("POST", "/", forged, headers)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()


def _printed() -> str:
    _, after = README.read_text().split("A whole receiver", 1)
    found = re.search(r"```python\n(.*?)```", after, re.S)
    assert found is not None
    return found[1]


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[PrintedReceiver]:
    with PrintedReceiver(tmp_path) as printed:
        yield printed


def test_the_receiver_in_the_readme_hears_of_every_batch_and_one_of_its_own(
    tmp_path: Path, printed: PrintedReceiver
) -> None:
    with Receiver() as own, StandinProcess(tmp_path) as standin:
        settings = {
            "webhook_urls": json.dumps([printed.url]),
            "webhook_hosts": json.dumps([own.host]),
            "webhook_secret": SECRET,
        }
        server = Server(tmp_path, standin.url, settings=settings)
        with server, server.client() as client:
            job = Job(["1"])
            job.create(client)
            job.complete(server, client)
            input = client.files.create(file=("in.jsonl", b'{"no": "line"}'), purpose="batch")
            failed = client.batches.create(
                input_file_id=input.id,
                endpoint=_CHAT,
                completion_window="24h",
                extra_body={"webhook_url": own.url("/failed?token=xyzzy")},
            )
            printed.wait_until_logged(f"batch.completed {job.batch_id}\n")
            printed.wait_until_logged(f"batch.failed {failed.id}\n")
            own.wait_until_heard(1)

            (heard,) = own.heard
            assert heard.path == "/failed?token=xyzzy"
            assert heard.batch_id(client) == failed.id
            assert "xyzzy" not in server.log_tail()
            assert SECRET not in server.log_tail()
