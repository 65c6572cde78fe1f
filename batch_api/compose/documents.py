"""What the files say, put together from the templates beside this one; nothing is written here."""

import json
from collections.abc import Collection
from pathlib import Path
from string import Template

from batch_api import __version__
from batch_api.settings import Settings

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

_NGINX_IMAGE = "nginx:1.30.4-alpine"
_PROMETHEUS_IMAGE = "prom/prometheus:v3.13.2"
_GRAFANA_IMAGE = "grafana/grafana:12.3.2"
_STATED = {"host", "port", "data_dir", "upstream", "workers", "api_key", "model", "max_in_flight"}
"""By the templates."""
_LEFT_OUT = {"failpoints", "allow_anyone"}
"""The one is for tests, the other for servers without a key."""
_IN_FLIGHT_PER_GPU, _MOST_IN_FLIGHT = 128, 4096
_FOR_WORKERS = {"task", "max_length", "max_sequences", "dtype", "log_level"}


class _Part(Template):
    """One of the templates. Compose's own variables begin with a dollar sign, ours with %."""

    delimiter = "%"

    @classmethod
    def read(cls, name: str) -> "_Part":
        return cls((Path(__file__).parent / name).read_text())


def compose_file(*, gpus: int, model: str = DEFAULT_MODEL, file: str) -> str:
    """A worker on each GPU behind one batch server; from two on nginx stands between."""
    stated: dict[str, object] = {
        "gpus": gpus,
        "file": file,
        "model": model,
        "in_flight": min(_IN_FLIGHT_PER_GPU * gpus, _MOST_IN_FLIGHT),
        "version": __version__,
        "nginx_image": _NGINX_IMAGE,
        "watched": _watched(gpus=gpus),
    }
    workers = "".join(_on_gpu(gpu) for gpu in range(gpus))
    monitoring = _Part.read("monitoring.yml").substitute(
        prometheus_image=_PROMETHEUS_IMAGE, grafana_image=_GRAFANA_IMAGE, targets=targets(gpus=gpus)
    )
    arrangement = _alone(stated) if gpus == 1 else _behind_nginx(stated)
    return _Part.read("frame.yml").substitute(
        stated,
        server_settings=_passed_on(_for_server(), indent=6),
        worker_settings=_passed_on(_FOR_WORKERS, indent=4),
        monitoring=monitoring.rstrip("\n"),
        **arrangement | {"workers": arrangement["workers"] + workers.rstrip("\n")},
    )


def worker_list(*, gpus: int) -> str:
    """What nginx includes. A worker that fails is left alone for a few seconds."""
    lines = (
        f"server worker-{gpu}:8000 resolve max_fails=1 fail_timeout=2s;\n" for gpu in range(gpus)
    )
    return "".join(lines)


def _watched(*, gpus: int) -> str:
    """Where the dashboard looks how the workers are, also through nginx."""
    return json.dumps([f"http://worker-{gpu}:8000" for gpu in range(gpus)])


def targets(*, gpus: int) -> str:
    """Whom Prometheus asks beside the server."""
    return json.dumps([{"targets": [f"worker-{gpu}:8000" for gpu in range(gpus)]}])


def _on_gpu(gpu: int) -> str:
    """The first builds the image: two builds of one image at once would fail."""
    build = "" if gpu else "\n    build: {context: ., target: worker}"
    return _Part.read("gpu.yml").substitute(gpu=gpu, build=build)


def _alone(stated: dict[str, object]) -> dict[str, str]:
    return {
        "devices": "GPU",
        "profiles": "gpu, vllm or llama-cpp, or cpu without one",
        "upstream": "http://worker-0:8000/v1",
        "server_depends_on": "    # Not on the workers: jobs are taken while the model loads.",
        "nginx": "",
        "workers": _Part.read("cpu.yml").substitute(stated),
    }


def _behind_nginx(stated: dict[str, object]) -> dict[str, str]:
    return {
        "devices": "GPUs",
        "profiles": "gpu, vllm or llama-cpp",
        "upstream": "http://nginx:8000/v1",
        "server_depends_on": "    # Not on the workers: jobs are taken while the models load.\n"
        "    depends_on: {nginx: {condition: service_healthy}}",
        "nginx": _Part.read("nginx.yml").substitute(stated),
        "workers": "",
    }


def _for_server() -> set[str]:
    return set(Settings.model_fields) - (_FOR_WORKERS - {"log_level"}) - _STATED - _LEFT_OUT


def _passed_on(settings: Collection[str], *, indent: int) -> str:
    """Variables without a value: Compose takes them from .env, or leaves them out."""
    names = (name for name in Settings.model_fields if name in settings)
    return "\n".join(f"{' ' * indent}BATCH_API_{name.upper()}:" for name in names)
