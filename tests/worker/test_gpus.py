"""What NVIDIA's driver tells of GPUs, as metrics; without a GPU there are none."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from batch_api.metrics import exposition
from batch_api.worker.gpus import Gpus
from tests.scraping import Scrape


class DriverError(Exception):
    pass


@dataclass
class Driver:
    """As the module `pynvml`, for a machine with two GPUs; handles are indexes."""

    NVMLError: type[Exception] = DriverError
    lost: set[int] = field(default_factory=set)
    """GPUs that fell off the bus."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}aaa-bbb"

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self._check(handle)
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self._check(handle)
        return SimpleNamespace(gpu=75, memory=50)

    def _check(self, handle: int) -> None:
        if handle in self.lost:
            raise DriverError("GPU is lost")


def _told(gpus: Gpus) -> Scrape:
    registry = CollectorRegistry()
    registry.register(gpus)
    return Scrape.of(bytes(exposition(registry).body))


def _seen(scrape: Scrape) -> list[str]:
    return [sample.labels["gpu"] for sample in scrape.all("batch_api_gpu_memory_used_bytes")]


def test_each_gpu_tells_its_memory_and_how_busy_it_is() -> None:
    scrape = _told(Gpus(Driver(), visible=None))

    second = {"gpu": "1", "uuid": "GPU-1aaa-bbb", "name": "NVIDIA H100"}
    assert scrape.value("batch_api_gpu_memory_used_bytes", **second) == 11
    assert scrape.value("batch_api_gpu_memory_total_bytes", **second) == 80
    assert scrape.value("batch_api_gpu_utilization_ratio", **second) == 0.75
    assert _seen(scrape) == ["0", "1"]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("1", ["1"]), ("GPU-0aaa", ["0"]), ("1, 0", ["0", "1"]), ("", []), ("-1", [])],
)
def test_a_worker_tells_of_its_own_gpus(visible: str, seen: list[str]) -> None:
    assert _seen(_told(Gpus(Driver(), visible=visible))) == seen


def test_a_gpu_that_is_lost_is_left_out() -> None:
    assert _seen(_told(Gpus(Driver(lost={0}), visible=None))) == ["1"]


def test_without_a_driver_there_are_no_gpus() -> None:
    assert not _told(Gpus(None, visible=None)).samples
    assert not _told(Gpus.found()).samples
