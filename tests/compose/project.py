"""Reads a Compose file as Docker Compose does, and what it needs of the Dockerfile."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker-compose-multigpu.yml")

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:-|:\?)([^}]*))?\})")


class VariableMissing(Exception):
    """Compose refuses the file, with this message."""


@dataclass(frozen=True, slots=True)
class Image:
    """A target of the Dockerfile, with what it takes from the ones before."""

    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    user: str = "root"


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    given: dict[str, Any]
    image: Image

    @property
    def names(self) -> list[str]:
        """By which others reach it."""
        networks = self.given["networks"]
        aliases = [] if isinstance(networks, list) else networks["inside"]["aliases"]
        return [self.name, *aliases]

    @property
    def command(self) -> list[str]:
        entrypoint = self.given.get("entrypoint", self.image.entrypoint)
        command = self.given.get("command", self.image.command)
        return [*entrypoint, *(shlex.split(command) if isinstance(command, str) else command)]

    @property
    def environment(self) -> dict[str, str]:
        given: dict[str, str] = self.given.get("environment", {})
        return self.image.environment | given

    @property
    def healthcheck(self) -> list[str]:
        if "healthcheck" not in self.given:
            return self.image.healthcheck
        kind, *command = self.given["healthcheck"]["test"]
        assert kind == "CMD"
        return list(command)


def load(file: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Raises VariableMissing."""
    parsed = yaml.safe_load((ROOT / file).read_text())
    resolved: dict[str, Any] = _resolved(parsed, variables)
    for service in resolved["services"].values():
        if "environment" in service:
            service["environment"] = dict(_passed_on(service["environment"], variables))
    return resolved


def services(file: str, variables: Mapping[str, str], *profiles: str) -> list[Service]:
    """Those that run with these profiles, each after the ones that it waits for."""
    every = load(file, variables)["services"]
    given = {
        name: service
        for name, service in every.items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }
    waits = {name: set(service.get("depends_on", {})) for name, service in given.items()}
    return [
        Service(name, given[name], _image_of(given[name], every.values()))
        for name in TopologicalSorter(waits).static_order()
    ]


def variables_in(file: str) -> set[str]:
    """That may be set, be it with or without a default."""
    text = (ROOT / file).read_text()
    passed_on = re.findall(r"^ +(\w+):$", text, flags=re.MULTILINE)
    named = {found[2] for found in _VARIABLE.finditer(text) if found[2]}
    return named | {name for name in passed_on if name.isupper()}


def images() -> dict[str, Image]:
    """By the name of the target."""
    made: dict[str, Image] = {}
    name = ""
    for instruction, value in instructions():
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            made[name] = made.get(base, Image())
        elif name:
            made[name] = _after(made[name], instruction, value)
    return made


def instructions() -> Iterator[tuple[str, str]]:
    """Of the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, value = line.partition(" ")
            yield instruction, value.strip()


def _after(image: Image, instruction: str, value: str) -> Image:
    match instruction:
        case "ENV":
            added = dict(pair.split("=", 1) for pair in shlex.split(value))
            return replace(image, environment=image.environment | added)
        case "USER":
            return replace(image, user=value)
        case "ENTRYPOINT":
            return replace(image, entrypoint=json.loads(value), command=[])
        case "CMD":
            return replace(image, command=json.loads(value))
        case "HEALTHCHECK":
            return replace(image, healthcheck=json.loads(value.partition("CMD ")[2]))
    return image


def _image_of(service: Mapping[str, Any], every: Iterable[Mapping[str, Any]]) -> Image:
    """As one of all services builds it; nothing is known of images that are not ours."""
    targets = {each["image"]: each["build"]["target"] for each in every if "build" in each}
    target = targets.get(service["image"])
    return Image() if target is None else images()[target]


def _resolved(value: Any, variables: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, variables), value)
        case dict():
            return {key: _resolved(each, variables) for key, each in value.items()}
        case list():
            return [_resolved(each, variables) for each in value]
    return value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, name, operator, operand = found.groups()
    if dollar:
        return "$"
    if value := variables.get(name, ""):
        return value
    if operator == ":?":
        raise VariableMissing(operand)
    return operand or ""


def _passed_on(
    environment: Mapping[str, str | None], variables: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name, value in environment.items():
        if value is not None:
            yield name, value
        elif name in variables:
            yield name, variables[name]
