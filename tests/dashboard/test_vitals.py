"""What is read of a worker's `/metrics`."""

import pytest

from batch_api.dashboard.vitals import Vitals, read_vitals
from tests.dashboard.workers import vllm

GPUS = """\
# TYPE batch_api_worker_ready gauge
batch_api_worker_ready 0.0
# TYPE batch_api_gpu_utilization_ratio gauge
batch_api_gpu_utilization_ratio{gpu="0",name="NVIDIA H100",uuid="GPU-1"} 0.97
# TYPE batch_api_gpu_memory_used_bytes gauge
batch_api_gpu_memory_used_bytes{gpu="0",name="NVIDIA H100",uuid="GPU-1"} 6e+10
# TYPE batch_api_gpu_memory_total_bytes gauge
batch_api_gpu_memory_total_bytes{gpu="0",name="NVIDIA H100",uuid="GPU-1"} 8e+10
"""
LLAMA = """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 99
"""


def test_engines_are_added_up_and_the_fullest_cache_counts() -> None:
    vitals = read_vitals(vllm(model="org/m", running=8, tokens=100))

    assert (vitals.running, vitals.waiting, vitals.cache_share) == (8, 6, 0.75)
    assert (vitals.output_tokens, vitals.input_tokens) == (100, None)
    assert vitals.models == {"org/m"}


def test_our_own_workers_tell_of_their_gpu_and_that_they_load() -> None:
    vitals = read_vitals(GPUS)

    assert vitals.is_ready is False
    (gpu,) = vitals.gpus
    assert (gpu.name, gpu.busy_share) == ("NVIDIA H100", 0.97)
    assert (gpu.used_bytes, gpu.total_bytes) == (6e10, 8e10)


def test_llama_cpp_tells_as_much() -> None:
    vitals = read_vitals(LLAMA)

    assert (vitals.running, vitals.output_tokens, vitals.waiting) == (2, 99, None)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html>nothing</html>",
        "vllm:num_requests_running{",
        "vllm:num_requests_running one",
        'vllm:num_requests_running{model_name="x} 1',
        "vllm:num_requests_running NaN",
        "vllm:num_requests_running +Inf",
        "vllm:num_requests_running 1e308",
        "vllm:num_requests_running -1",
        "\x00\ud7ff",
    ],
)
def test_of_a_page_that_makes_no_sense_nothing_is_read(page: str) -> None:
    assert read_vitals(page) == Vitals()


@pytest.mark.parametrize("number", ["+Inf", "-Inf", "NaN", "1e308"])
def test_a_gpu_of_which_no_number_makes_sense_is_not_told(number: str) -> None:
    vitals = read_vitals(GPUS.replace("0.97", number))

    (gpu,) = vitals.gpus
    assert (gpu.busy_share, gpu.used_bytes) == (None, 6e10)
