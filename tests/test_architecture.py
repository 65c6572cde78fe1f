"""Who may import whom."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "batch_api"

_BASIC = {"origins", "waiting", "clock", "errors", "failpoints", "lifecycle", "logs", "settings"}
_UPSTREAMS = {"lookups", "upstream", "upstreams", "unusable"}
_SERVERS = {"about", "envelope", "metrics", "queries", "remembered", "routes", "__version__"}
_SQL = {"sqlalchemy", "sqlite3", "aiosqlite", "alembic"}
MAY_IMPORT = {
    "clock": set(),
    "compose": {"settings", "__version__"},
    "errors": set(),
    "lifecycle": set(),
    "in_words": set(),
    "logs": set(),
    "settings": set(),
    "engine": set(),
    "schemas": {"lifecycle"},
    "failpoints": {"errors"},
    "store": {"failpoints", "in_words", "lifecycle", "errors", "origins"},
    "problems": {"errors"},
    "envelope": {"errors", "problems"},
    "connection": {"errors"},
    "forbidden": {"errors"},
    "gate": {"envelope", "errors"},
    "about": {"__version__"},
    "remembered": {"clock"},
    "disconnect": set(),
    "routes": set(),
    "metrics": {"__version__"},
    "standing": set(),
    "origins": set(),
    "lookups": set(),
    "receivers": {"lookups", "upstream"},
    "unusable": set(),
    "upstream": {"standing", "unusable", "schemas"},
    "upstreams": {"lookups", "upstream", "standing", "unusable", "schemas", "waiting"},
    "queries": {"errors", "envelope", "schemas"},
    "waiting": set(),
    "client": {"errors", "in_words", "lifecycle", "schemas"},
    "supervisor": {"errors", "waiting"},
    "api": {"store", "schemas", "disconnect", "forbidden", "gate"} | _SERVERS | _UPSTREAMS | _BASIC,
    "scheduler": {"store", "schemas", "forbidden", "metrics", "receivers"} | _UPSTREAMS | _BASIC,
    "worker": {"engine", "schemas", "disconnect"} | _SERVERS | _BASIC,
    "dashboard": {"api", "in_words", "store", "schemas"} | _SERVERS | _UPSTREAMS | _BASIC,
}
"""By part of the package. `cli` and `commands` build the object graph and may import all."""


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_point_one_way(part: str) -> None:
    imported = {name for path in _files(part) for name in _imports(path)}

    assert imported - {part} <= MAY_IMPORT[part]


def test_every_part_has_its_rule() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__")}

    assert parts - set(MAY_IMPORT) == {"cli", "commands", "demo_model", "py"}


@pytest.mark.parametrize("module", ["batch_api.cli", "batch_api.commands.serve"])
def test_a_server_needs_nothing_of_a_worker(module: str) -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in _only_for_workers())
    code = f"import sys; {blocked}; import {module}"

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _only_for_workers() -> list[str]:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    needed = project["optional-dependencies"]["worker"]
    return [re.split(r"[^\w-]", requirement)[0] for requirement in needed]


def test_only_the_store_writes_sql() -> None:
    imported = {name for path in _outside_store() for name in _imported_for_sql(path)}

    assert imported <= {"sqlalchemy.ext.asyncio.AsyncSession"}


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("import sqlite3", {"sqlite3"}),
        ("import sqlalchemy as sa", {"sqlalchemy"}),
        ("import sqlalchemy.orm", {"sqlalchemy.orm"}),
        ("def f():\n    from aiosqlite import connect", {"aiosqlite.connect"}),
        ("from alembic import command", {"alembic.command"}),
        ("import sqlalchemy_utils, json", set()),
    ],
)
def test_no_way_to_import_sql_goes_unseen(tmp_path: Path, code: str, imported: set[str]) -> None:
    path = tmp_path / "some.py"
    path.write_text(code)

    assert set(_imported_for_sql(path)) == imported


def _files(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _imports(path: Path) -> Iterator[str]:
    """Parts of the package that this file imports."""
    for module in _modules(path):
        if module.startswith("batch_api."):
            yield module.split(".")[1]
        assert module != "batch_api", f"{path} imports the whole package"


def _modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "batch_api":
                yield from (f"batch_api.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def _outside_store() -> list[Path]:
    store = PACKAGE / "store"
    return [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(store)]


def _imported_for_sql(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = (source + alias.name for alias in node.names)
            yield from (name for name in names if name.split(".")[0] in _SQL)


def test_every_http_client_looks_names_up_in_threads_of_its_own() -> None:
    """One that hangs would hold up all that is done in asyncio's."""
    made = {
        path.stem: ast.unparse(node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "aiohttp.TCPConnector"
    }
    clients = [path.stem for path in PACKAGE.rglob("*.py") if "ClientSession(" in path.read_text()]

    assert sorted(made) == sorted(clients) == ["fleet", "receivers", "upstreams"]
    assert all("resolver=" in call for call in made.values())
