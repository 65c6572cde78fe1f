"""What a worker's `/metrics` says of its load, under the names of vLLM, llama.cpp or our own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "cache_share",
    "vllm:gpu_cache_usage_perc": "cache_share",
    "vllm:prompt_tokens_total": "input_tokens",
    "vllm:generation_tokens_total": "output_tokens",
    "llamacpp:requests_processing": "running",
    "llamacpp:requests_deferred": "waiting",
    "llamacpp:kv_cache_usage_ratio": "cache_share",
    "llamacpp:prompt_tokens_total": "input_tokens",
    "llamacpp:tokens_predicted_total": "output_tokens",
}
"""vLLM's older and newer ones; a worker of ours has vLLM's."""
_SHARES = {"cache_share"}
_READY = "batch_api_worker_ready"
_GPU = "batch_api_gpu_"
_BEGINNINGS = tuple({*_NAMES, _READY, _GPU})
_MOST_LABEL = 200
_MOST = 2.0**63
"""What is more, or infinite, no worker can mean."""


@dataclass(slots=True)
class Gpu:
    name: str
    busy_share: float | None = None
    used_bytes: float | None = None
    total_bytes: float | None = None


@dataclass(slots=True)
class Vitals:
    """None: it does not tell. Counts of several engines are added up."""

    models: set[str] = field(default_factory=set)
    running: float | None = None
    waiting: float | None = None
    cache_share: float | None = None
    """Of the fullest engine; 1: nothing is free."""
    input_tokens: float | None = None
    """Since the process began, as below."""
    output_tokens: float | None = None
    is_ready: bool | None = None
    gpus: list[Gpu] = field(default_factory=list)

    @property
    def tells_anything(self) -> bool:
        return self.running is not None or self.is_ready is not None


def read_vitals(text: str) -> Vitals:
    """Of what is no such page nothing is read. Blocks, but parses only the lines it needs."""
    vitals, gpus = Vitals(), dict[str, Gpu]()
    try:
        for sample in _samples(text):
            _note(vitals, gpus, sample)
    except (ValueError, KeyError, IndexError):
        return Vitals()
    vitals.gpus = [gpus[key] for key in sorted(gpus)]
    return vitals


def _samples(text: str) -> Iterable[Any]:
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(_BEGINNINGS))
    for family in text_string_to_metric_families(f"{wanted}\n"):
        yield from (sample for sample in family.samples if _is_sound(sample.value))


def _is_sound(value: float) -> bool:
    """NaN is not: it does not know."""
    return 0 <= value <= _MOST


def _note(vitals: Vitals, gpus: dict[str, Gpu], sample: Any) -> None:
    if sample.name.startswith(_GPU):
        _note_gpu(gpus, sample)
    elif sample.name == _READY:
        vitals.is_ready = sample.value > 0
    elif name := _NAMES.get(sample.name):
        _add(vitals, name, sample.value)
        if model := sample.labels.get("model_name"):
            vitals.models.add(model[:_MOST_LABEL])


def _add(vitals: Vitals, name: str, value: float) -> None:
    known = getattr(vitals, name) or 0.0
    setattr(vitals, name, max(known, value) if name in _SHARES else known + value)


def _note_gpu(gpus: dict[str, Gpu], sample: Any) -> None:
    labels = sample.labels
    gpu = gpus.setdefault(labels.get("gpu", ""), Gpu(labels.get("name", "GPU")[:_MOST_LABEL]))
    match sample.name.removeprefix(_GPU):
        case "utilization_ratio":
            gpu.busy_share = sample.value
        case "memory_used_bytes":
            gpu.used_bytes = sample.value
        case "memory_total_bytes":
            gpu.total_bytes = sample.value
