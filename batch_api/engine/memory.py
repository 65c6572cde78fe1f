"""How much memory is free, as the device or the system says; a container's limit counts."""

import os
from pathlib import Path

import torch

_UNKNOWN = 2 * 1024**3  # where the system says nothing
_CGROUP = "sys/fs/cgroup"  # version 2: inside a container, the container's own


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_on_host(Path("/"))


def free_on_host(root: Path) -> int:
    """`root`: where `proc` and `sys` are."""
    known = [_available(root / "proc/meminfo"), _left_in_cgroup(root / _CGROUP)]
    return min((each for each in known if each is not None), default=_installed())


def _available(meminfo: Path) -> int | None:
    kibibytes = _field(meminfo, "MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _left_in_cgroup(folder: Path) -> int | None:
    """Up to the limit; cached files that nobody uses make room, as Kubernetes counts too."""
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    cached = _field(folder / "memory.stat", "inactive_file") or 0
    return max(0, limit - max(0, used - cached))


def _installed() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def _number(path: Path) -> int | None:
    """None where there is no file, or another word in it, such as "max"."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    for line in _text(path).splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
