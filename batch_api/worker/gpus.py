"""How busy and how full this worker's GPUs are, as NVIDIA's driver tells; nothing without one."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Self

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

_LABELS = ("gpu", "uuid", "name")


class Gpus(Collector):
    def __init__(self, nvml: Any, *, visible: str | None) -> None:
        """`nvml`: what speaks to the driver, as `pynvml`; None: nobody does.

        `visible`: CUDA_VISIBLE_DEVICES, which the driver knows nothing of; None: all.
        """
        self._nvml = nvml
        self._visible = None if visible is None else [each.strip() for each in visible.split(",")]

    @classmethod
    def found(cls) -> Self:
        return cls(_nvml(), visible=os.environ.get("CUDA_VISIBLE_DEVICES"))

    def collect(self) -> Iterator[Metric]:
        """A GPU that can't be asked now, for it fell off its bus, is left out."""
        if self._nvml is None:
            return
        busy = _gauge("utilization_ratio", "Share of the time in which kernels ran.")
        used = _gauge("memory_used_bytes", "Memory in use, of all processes.")
        total = _gauge("memory_total_bytes", "Memory that there is.")
        for labels, handle in self._handles():
            with suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(labels, memory.used)
                total.add_metric(labels, memory.total)
            with suppress(self._nvml.NVMLError):
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                busy.add_metric(labels, rates.gpu / 100)
        yield from (busy, used, total)

    def _handles(self) -> Iterator[tuple[Sequence[str], Any]]:
        with suppress(self._nvml.NVMLError):
            for index in range(self._nvml.nvmlDeviceGetCount()):
                with suppress(self._nvml.NVMLError):
                    handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                    uuid = _text(self._nvml.nvmlDeviceGetUUID(handle))
                    if self._is_visible(index, uuid):
                        name = _text(self._nvml.nvmlDeviceGetName(handle))
                        yield (str(index), uuid, name), handle

    def _is_visible(self, index: int, uuid: str) -> bool:
        """By its number, or by the beginning of its UUID."""
        if self._visible is None:
            return True
        return any(each == str(index) or (each and uuid.startswith(each)) for each in self._visible)


def _gauge(name: str, told: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"batch_api_gpu_{name}", told, labels=_LABELS)


def _text(given: str | bytes) -> str:
    """Bytes, in older versions."""
    return given.decode() if isinstance(given, bytes) else given


def _nvml() -> Any:
    """None without the package, a driver or a GPU."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.debug("no GPU is asked how busy it is", extra={"reason": str(error)})
        return None
    return nvml
