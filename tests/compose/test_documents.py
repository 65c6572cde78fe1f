"""What the Compose files say, held against the specification, the settings and each other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from batch_api.commands.worker import GRACE_SECONDS
from batch_api.compose.documents import compose_file, worker_list
from batch_api.settings import Settings
from tests.compose.project import (
    FILES,
    ROOT,
    VariableMissing,
    images,
    instructions,
    load,
    services,
    variables_in,
)

KEY = {"BATCH_API_API_KEY": "sk-of-sixteen-characters"}
PROFILES = {
    "docker-compose.yml": ["gpu", "cpu", "vllm", "llama-cpp", "front", "monitoring"],
    "docker-compose-multigpu.yml": ["gpu", "vllm", "llama-cpp", "front", "monitoring"],
}
STATED = {"host", "port", "data_dir", "upstream", "workers", "failpoints", "allow_anyone"}
"""Settings that an operator of containers does not make."""


@pytest.mark.parametrize(("gpus", "file"), [(1, FILES[0]), (8, FILES[1])])
def test_the_committed_files_are_what_the_command_writes(gpus: int, file: str) -> None:
    """If a setting is new: `make compose`."""
    assert (ROOT / file).read_text() == compose_file(gpus=gpus, file=file)


def test_the_committed_list_of_workers_is_what_the_command_writes() -> None:
    assert (ROOT / "nginx" / "workers.list").read_text() == worker_list(gpus=8)


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 16])
def test_any_number_of_gpus_keeps_to_the_specification(gpus: int) -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    parsed = yaml.safe_load(compose_file(gpus=gpus, file="some.yml"))

    problems = jsonschema_rs.validator_for(schema).iter_errors(parsed)

    assert [f"{problem.instance_path}: {problem.message}" for problem in problems] == []


@pytest.mark.parametrize("gpus", [1, 3, 16])
def test_prometheus_asks_every_worker_and_no_other(gpus: int) -> None:
    parsed = yaml.safe_load(compose_file(gpus=gpus, file="some.yml"))

    (group,) = json.loads(parsed["services"]["prometheus"]["environment"]["WORKERS"])

    workers = {name for name in parsed["services"] if name.startswith("worker-")}
    assert {target.removesuffix(":8000") for target in group["targets"]} == workers


@pytest.mark.parametrize("gpus", [1, 3])
def test_the_dashboard_looks_after_each_worker_also_behind_nginx(gpus: int) -> None:
    parsed = yaml.safe_load(compose_file(gpus=gpus, file="some.yml"))
    server = parsed["services"]["batch-api"]["environment"]

    assert json.loads(server["BATCH_API_WORKERS"]) == [
        f"http://worker-{gpu}:8000" for gpu in range(gpus)
    ]


@pytest.mark.parametrize("file", FILES)
def test_who_watches_runs_without_rights_and_is_seen_by_this_machine_alone(file: str) -> None:
    given = load(file, KEY)["services"]

    for name, user in (("prometheus", "65534:65534"), ("grafana", "472:0")):
        assert given[name]["user"] == user
        assert given[name]["profiles"] == ["monitoring"]
        assert given[name]["healthcheck"]["test"][0] == "CMD"
    assert given["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@pytest.mark.parametrize("gpus", [1, 3, 16])
def test_each_gpu_has_its_worker_of_each_kind(gpus: int) -> None:
    parsed = yaml.safe_load(compose_file(gpus=gpus, file="some.yml"))

    for profile in ("gpu", "vllm", "llama-cpp"):
        devices = [
            device["device_ids"]
            for service in parsed["services"].values()
            if "deploy" in service and service["profiles"] == [profile]
            for device in service["deploy"]["resources"]["reservations"]["devices"]
        ]
        assert devices == [[str(gpu)] for gpu in range(gpus)]


@pytest.mark.parametrize(("file", "profile"), [(file, p) for file in FILES for p in PROFILES[file]])
def test_what_a_service_waits_for_runs_with_its_profile(file: str, profile: str) -> None:
    running = services(file, KEY, profile)
    names = {service.name for service in running}

    assert "batch-api" in names
    for service in running:
        assert set(service.given.get("depends_on", {})) <= names


@pytest.mark.parametrize("gpus", [1, 3, 16])
def test_each_image_of_ours_is_built_by_one_service_and_pulled_by_none(gpus: int) -> None:
    """Side by side, two builds of one image fail where containerd keeps the images."""
    every = yaml.safe_load(compose_file(gpus=gpus, file="some.yml"))["services"].values()
    ours = [each for each in every if each["image"].startswith("batch-api")]
    built = [each["image"] for each in ours if "build" in each]

    assert len(built) == len(set(built))
    assert set(built) == {each["image"] for each in ours}
    assert all(each["pull_policy"] == "never" for each in ours)
    assert not any("build" in each for each in every if each not in ours)


@pytest.mark.parametrize(("file", "profile"), [(file, p) for file in FILES for p in PROFILES[file]])
def test_each_profile_builds_what_it_runs(file: str, profile: str) -> None:
    running = [service.given for service in services(file, KEY, profile)]
    built = {each["image"] for each in running if "build" in each}

    ours = {each["image"] for each in running if each["image"].startswith("batch-api")}
    assert ours == built


def test_a_worker_on_the_cpu_is_told_all_that_one_on_a_gpu_is() -> None:
    settings = {"BATCH_API_LOG_LEVEL": "debug", "BATCH_API_MAX_SEQUENCES": "3"}

    on_gpu, on_cpu = [
        next(
            service.environment
            for service in services(FILES[0], KEY | settings, profile)
            if "worker-0" in service.names
        )
        for profile in ("gpu", "cpu")
    ]

    assert on_cpu == on_gpu | {"BATCH_API_MODEL": "demo"}
    assert settings.items() <= on_cpu.items()
    assert on_cpu["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("profile", ["gpu", "vllm", "llama-cpp"])
def test_nginx_knows_the_workers_of_every_profile_by_the_same_names(profile: str) -> None:
    listed = re.findall(r"^server (\S+):8000 ", worker_list(gpus=8), flags=re.MULTILINE)

    named = [name for each in services(FILES[1], KEY, profile) for name in each.names]

    assert len(listed) == 8
    assert set(listed) <= set(named)


@pytest.mark.parametrize("file", FILES)
def test_the_server_needs_a_key(file: str) -> None:
    with pytest.raises(VariableMissing, match=r"copy \.env\.example to \.env"):
        load(file, {})


@pytest.mark.parametrize("file", FILES)
def test_containers_can_do_no_more_than_they_must(file: str) -> None:
    for name, service in load(file, KEY)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] or service["profiles"] == ["vllm"], name
        assert service["ulimits"]["nofile"]["soft"] >= 65536, name
        assert not service.get("privileged"), name


@pytest.mark.parametrize("file", FILES)
def test_nothing_listens_for_other_machines_unless_it_is_told_to(file: str) -> None:
    for service in load(file, KEY)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("file", FILES)
def test_workers_have_no_way_out(file: str) -> None:
    given = load(file, KEY)
    workers = [each for each in given["services"].values() if "deploy" in each]

    assert given["networks"]["inside"] == {"internal": True}
    for worker in workers:
        assert set(worker["networks"]) == {"inside"}
        assert worker["volumes"] == ["models:/models:ro"]
        assert worker["environment"].get("HF_HUB_OFFLINE", "1") == "1"


@pytest.mark.parametrize("file", FILES)
def test_containers_may_end_what_they_are_at(file: str) -> None:
    drain = max(Settings().shutdown_grace_seconds, GRACE_SECONDS)

    for service in load(file, KEY)["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= 2 * drain


@pytest.mark.parametrize("file", FILES)
def test_images_of_others_are_pinned(file: str) -> None:
    for service in load(file, KEY)["services"].values():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+\.\d+|b\d+", tag), service["image"]


def test_the_example_names_every_setting_once_and_no_other() -> None:
    named = [name for name, _, _ in _example() if name.startswith("BATCH_API_")]

    settings = {f"BATCH_API_{name.upper()}" for name in set(Settings.model_fields) - STATED}
    assert sorted(named) == sorted(settings)


def test_the_example_names_all_that_compose_reads() -> None:
    named = {name for name, _, _ in _example()}

    read = {variable for file in FILES for variable in variables_in(file)}
    stated = {f"BATCH_API_{name.upper()}" for name in STATED}
    assert read - stated == named - {"COMPOSE_PROFILES"}


def test_the_example_shows_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    shown = [(name, value) for name, value, is_comment in _example() if is_comment]
    for name, value in shown:
        if name.startswith("BATCH_API_"):
            monkeypatch.setenv(name, value)

    told = Settings()

    for field in Settings.model_fields:
        default = getattr(defaults, field)
        assert default is None or getattr(told, field) == default, field


@pytest.mark.parametrize("file", FILES)
def test_the_example_shows_what_compose_takes_by_default(file: str) -> None:
    text = (ROOT / file).read_text()
    for name, value, is_comment in _example():
        stated = re.findall(rf"\$\{{{name}:-([^}}]*)\}}", text)
        if is_comment and name not in ("BATCH_API_MAX_IN_FLIGHT", "VLLM_ARGS", "LLAMA_ARGS"):
            assert set(stated) <= {value}, name


def test_only_what_is_there_is_copied_into_images() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored

    for instruction, value in instructions():
        if instruction == "COPY" and "--from" not in value:
            *sources, _ = value.split()
            assert set(sources) <= kept
            assert all((ROOT / source).exists() for source in sources)


def test_stages_come_from_stages_that_are_there() -> None:
    made = set(images())

    for instruction, value in instructions():
        if instruction == "FROM":
            base = value.partition(" AS ")[0]
            assert base in made or base == "python:${PYTHON}"
        for source in re.findall(r"(?:--from=|,from=)([\w-]+)", value):
            assert source in made


def test_images_run_as_nobody_in_particular_and_say_whether_they_are_well() -> None:
    made = images()

    assert {made[name].user for name in ("server", "worker", "model")} == {"10001:10001"}
    assert made["server"].healthcheck[0] == made["worker"].healthcheck[0] == "python"


def test_the_dependencies_of_images_are_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    installs = [v for i, v in instructions() if i == "RUN" and "pip install" in v]

    assert all("--constraint constraints.txt" in each or "--no-deps" in each for each in installs)
    for needed in ("huggingface_hub", "torch", "fastapi", "transformers"):
        assert re.search(rf"^{needed}==", pins, flags=re.MULTILINE)


def _example() -> Iterator[tuple[str, Any, bool]]:
    """Name, value, and whether it is commented out."""
    for line in Path(ROOT / ".env.example").read_text().splitlines():
        if found := re.fullmatch(r"(# )?([A-Z][A-Z_]+)=(.*)", line):
            yield found[2], found[3], found[1] is not None
