"""How much memory the engine takes for free."""

import os
from pathlib import Path

import pytest

from batch_api.engine.memory import free_on_host

MIB = 1024**2


def system(root: Path, **files: str) -> Path:
    """`proc/meminfo` with 1,000 MiB available, and the files of a cgroup."""
    (root / "proc").mkdir()
    meminfo = "MemTotal: 4096000 kB\nMemFree: 5 kB\nMemAvailable: 1024000 kB\n"
    (root / "proc/meminfo").write_text(meminfo)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, content in files.items():
        (root / "sys/fs/cgroup" / f"memory.{name}").write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1000),
        ({"max": "max\n", "current": f"{300 * MIB}\n"}, 1000),
        ({"max": f"{500 * MIB}\n"}, 1000),
        ({"max": f"{5000 * MIB}\n", "current": f"{300 * MIB}\n"}, 1000),
        ({"max": f"{500 * MIB}\n", "current": f"{300 * MIB}\n"}, 200),
        ({"max": f"{500 * MIB}\n", "current": f"{501 * MIB}\n"}, 0),
        (
            {
                "max": f"{500 * MIB}\n",
                "current": f"{499 * MIB}\n",
                "stat": f"anon {300 * MIB}\ninactive_file {199 * MIB}\n",
            },
            200,
        ),
    ],
)
def test_free_is_what_the_system_and_the_container_s_limit_leave(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    assert free_on_host(system(tmp_path, **files)) == free * MIB


def test_a_system_that_says_nothing_is_taken_by_its_installed_memory(tmp_path: Path) -> None:
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert free_on_host(tmp_path) == installed
