"""A real Prometheus, with our configuration, reads a real server that wants a key."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.monitoring.rules import ALERTS, MONITORING, alerts
from tests.server import Command, Server, StandinProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_KEY = "sk-of-sixteen-characters"
_SECONDS = 60
_POLL_SECONDS = 0.2


class Prometheus(Command):
    ready_path = "/-/ready"

    def __init__(self, folder: Path, config: Path) -> None:
        port = free_port()
        options = {
            "config.file": config,
            "storage.tsdb.path": folder / "tsdb",
            "web.listen-address": f"127.0.0.1:{port}",
        }
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        super().__init__(command, log=folder / "prometheus.log", port=port, environment={})

    def ask(self, expression: str) -> list[dict[str, Any]]:
        found = json.loads(self.fetch(f"/api/v1/query?{urlencode({'query': expression})}"))
        assert found["status"] == "success"
        return list(found["data"]["result"])

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + _SECONDS
        while not (found := self.ask(expression)):
            assert time.monotonic() < deadline, f"{expression} stays empty"
            time.sleep(_POLL_SECONDS)
        return found


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings={"api_key": _KEY}) as server,
        Prometheus(tmp_path, _localized(tmp_path, server)) as prometheus,
    ):
        yield prometheus


def _localized(folder: Path, server: Server) -> Path:
    """Our configuration, with the addresses and files of this test."""
    (folder / "api-key").write_text(_KEY)
    (folder / "alerts.yml").write_text(ALERTS.read_text())
    workers = [{"targets": [server.url.removeprefix("http://")]}]
    (folder / "workers.json").write_text(json.dumps(workers))
    text = (MONITORING / "prometheus.yml").read_text()
    for ours, here in {
        "/tmp": str(folder),
        "batch-api:5000": server.url.removeprefix("http://"),
        "15s": "1s",
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    config = folder / "prometheus.yml"
    config.write_text(text)
    return config


def test_it_reads_the_server_with_its_key_and_nothing_without(prometheus: Prometheus) -> None:
    (up,) = prometheus.wait_for('up{job="batch-api"} == 1')
    (without_a_key,) = prometheus.wait_for('up{job="worker"} == 0')

    assert up["metric"]["job"] == "batch-api"
    assert without_a_key["metric"]["job"] == "worker"
    (upstream,) = prometheus.wait_for("batch_api_upstream_up")
    assert upstream["value"][1] == "1"
    loaded = json.loads(prometheus.fetch("/api/v1/rules"))["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in loaded} == {alert["alert"] for alert in alerts()}
    assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}
