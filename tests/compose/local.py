"""Runs what a Compose file says as processes of this machine, in place of containers.

Commands, environments and health checks are the file's and the images' own. Only places are others:
each container is a port of 127.0.0.1, each volume a folder, and each GPU the CPU.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.compose.project import Service
from tests.nginx.process import Nginx
from tests.server import Command, free_port

_PORTS = {"batch-api": 5000, "front": 8080}
_USUAL_PORT = 8000
_SECONDS = 60
_VOLUMES = re.compile(r"^/(data|models)\b")
_BINARIES = Path(sys.executable).parent


class Container(Command):
    """One of our own images."""

    poll_seconds = 1.0  # a check is a process of its own

    def __init__(self, service: Service, site: "Site") -> None:
        super().__init__(
            site.localized(service, service.command),
            log=site.folder / f"{service.name}.log",
            port=site.ports[service.name],
            environment=site.environment(service),
        )
        self._check = site.localized(service, service.healthcheck)

    def _is_ready(self) -> bool:
        return subprocess.run(self._check, capture_output=True, timeout=_SECONDS).returncode == 0


class Site:
    """The ports, the volumes and the names that services know each other by."""

    def __init__(self, services: Sequence[Service], folder: Path, more: Mapping[str, str]) -> None:
        """`more`: of the environment of this machine, for those that have a way out."""
        self.folder = folder
        self.ports = {service.name: free_port() for service in services}
        self.addresses = {
            f"{name}:{port_of(service)}": f"127.0.0.1:{self.ports[service.name]}"
            for service in services
            for name in service.names
        }
        self._more = more
        for volume in ("data", "models"):
            (folder / volume).mkdir()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def localized(self, service: Service, command: Sequence[str]) -> list[str]:
        placed = [self._placed(service, argument) for argument in command]
        match placed:
            case ["batch-api", *arguments]:
                return [sys.executable, "-m", "batch_api", *arguments]
            case ["python", *arguments]:
                return [sys.executable, *arguments]
        return placed

    def environment(self, service: Service) -> dict[str, str]:
        given = {
            name: self._placed(service, value)
            for name, value in service.environment.items()
            if name not in ("PATH", "HOME")
        }
        if "outside" in service.given["networks"]:
            given |= self._more
        return given | {"PATH": f"{_BINARIES}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}

    def _placed(self, service: Service, text: str) -> str:
        own = {f"127.0.0.1:{port_of(service)}": f"127.0.0.1:{self.ports[service.name]}"}
        for place, address in (own | self.addresses).items():
            text = re.sub(rf"\b{re.escape(place)}\b", address, text)
        if text == str(port_of(service)):
            return str(self.ports[service.name])
        text = _VOLUMES.sub(lambda found: str(self.folder / found[1]), text)
        return text.replace("0.0.0.0", "127.0.0.1")


def port_of(service: Service) -> int:
    return _PORTS.get(service.name, _USUAL_PORT)


@contextmanager
def up(services: Sequence[Service], folder: Path, more: Mapping[str, str]) -> Iterator[Site]:
    """As `docker compose up --wait`."""
    site = Site(services, folder, more)
    with ExitStack() as stack:
        running: dict[str, Command] = {}
        for service in services:
            _wait_for(service, running)
            if service.given["restart"] == "no":
                _run(service, site)
                continue
            running[service.name] = container = _container(service, site)
            stack.push(container)
            container.spawn()
        for container in running.values():
            container.wait_until_ready()
        yield site


def _wait_for(service: Service, running: Mapping[str, Command]) -> None:
    for name, dependency in service.given.get("depends_on", {}).items():
        if dependency["condition"] == "service_healthy":
            running[name].wait_until_ready()
        else:
            assert dependency["condition"] == "service_completed_successfully"


def _container(service: Service, site: Site) -> Command:
    if service.command[0] != "nginx":
        return Container(service, site)
    (file,) = (argument for argument in service.command if argument.endswith(".conf"))
    return Nginx(Path(file).name, site.addresses, port=site.ports[service.name])


def _run(service: Service, site: Site) -> None:
    """Until it has ended well."""
    subprocess.run(
        site.localized(service, service.command),
        env=os.environ | site.environment(service),
        check=True,
        timeout=_SECONDS,
    )
