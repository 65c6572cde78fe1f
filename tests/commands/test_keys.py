"""`batch-api keys`, on a folder that nobody serves, and beside a server."""

import asyncio
import json
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batch_api.api.keys import Keyring
from batch_api.clock import Clock
from batch_api.commands.keys import KeyUnknown, create_key, list_keys, revoke_key
from batch_api.settings import Settings
from batch_api.store.database import Database, DataFolderUnusable
from batch_api.store.orders import Orders
from tests.command_line import Ended, batch_api
from tests.server import Server, StandinProcess

_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    with StandinProcess(folder) as standin, Server(folder, standin.url) as server:
        yield server


def command(*arguments: str, folder: Path) -> Ended:
    return batch_api("keys", *arguments, "--data-dir", str(folder))


def status_for(server: Server, key: str) -> int:
    request = urllib.request.Request(
        f"{server.url}/v1/files", headers={"authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as refused:
        with refused:
            status = refused.code
    return status


def listed(folder: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(command("list", "--json", folder=folder).stdout)
    return told


def test_keys_are_made_and_revoked_beside_a_server_that_needed_none(server: Server) -> None:
    """With effect before the command ends."""
    assert status_for(server, "none") == 200

    made = command("create", "nightly", "--tenant", "team-a", folder=server.data_dir)
    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert [status_for(server, one) for one in ("none", key)] == [401, 200]

    (told,) = listed(server.data_dir)
    assert (told["name"], told["tenant"], told["status"]) == ("nightly", "team-a", "valid")
    assert key not in json.dumps(told)

    assert command("revoke", told["id"], folder=server.data_dir).returncode == 0
    assert status_for(server, key) == 401
    assert [one["status"] for one in listed(server.data_dir)] == ["revoked"]
    assert key not in server.log_tail()


def test_a_header_of_100_kilobytes_is_refused_and_the_server_lives(server: Server) -> None:
    assert status_for(server, "k" * 100_000) in (401, 431)
    assert server.fetch("/health")


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke", "key_unknown"),
        ("create", "x", "--tenant", "Team A"),
        ("create", "x", "--tenant", "../x"),
        ("create", "x", "--expires-in", "soon"),
        ("create", ""),
        ("create", "two\nlines"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_sentence(
    tmp_path: Path, migrated: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "batch-api.db").write_bytes(migrated.read_bytes())

    refused = command(*arguments, folder=tmp_path)

    assert refused.returncode == 2
    assert refused.stderr.startswith("batch-api: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lifetime", "seconds"), [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_a_lifetime_is_of_minutes_hours_days_or_weeks(
    tmp_path: Path, lifetime: str, seconds: int
) -> None:
    made = command("create", "k", "--expires-in", lifetime, folder=tmp_path)
    assert made.returncode == 0, made.stderr

    with closing(sqlite3.connect(tmp_path / "batch-api.db")) as database:
        ((told,),) = database.execute("SELECT expires_at - created_at FROM api_keys")
    assert told == seconds


async def test_a_key_made_before_the_first_start_opens_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.time()
    await create_key(tmp_path, name="first", tenant="default", lifetime_seconds=3600)
    made = time.time()
    key = capsys.readouterr().out.strip()

    database = await Database.open(tmp_path)
    keyring = await Keyring.open(database, Settings(data_dir=tmp_path), Clock())
    found = keyring.find(key.encode())
    await database.close()

    assert found is not None
    assert found.tenant == "default"
    assert found.expires_at is not None
    assert began - 1 <= found.expires_at - 3600 <= made


async def test_a_secret_has_256_bits_and_no_two_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        await create_key(tmp_path, name="k", tenant="default", lifetime_seconds=None)
    first, second = capsys.readouterr().out.split()

    assert first != second
    assert first.startswith("sk-")
    assert len(first) == len("sk-") + 43


async def test_the_list_shows_everything_but_the_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await create_key(tmp_path, name="old", tenant="team-a", lifetime_seconds=0)
    await create_key(tmp_path, name="new", tenant="default", lifetime_seconds=None)
    secrets = capsys.readouterr().out.split()

    await list_keys(tmp_path, as_json=False)
    table = capsys.readouterr().out
    await list_keys(tmp_path, as_json=True)
    told = json.loads(capsys.readouterr().out)

    assert [line.split()[1:4] for line in table.splitlines()[1:]] == [
        ["old", "team-a", "expired"],
        ["new", "default", "valid"],
    ]
    assert [key["status"] for key in told] == ["expired", "valid"]
    assert all(secret[3:] not in table + json.dumps(told) for secret in secrets)


async def test_a_folder_without_a_server_or_a_database_is_not_made_by_looking(
    tmp_path: Path,
) -> None:
    for look in (list_keys(tmp_path / "no", as_json=True), revoke_key(tmp_path / "no", "key_1")):
        with pytest.raises(DataFolderUnusable):
            await look

    assert not (tmp_path / "no").exists()


async def test_a_folder_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataFolderUnusable):
        await create_key(tmp_path / "file", name="k", tenant="default", lifetime_seconds=None)


async def test_a_database_that_a_server_owns_is_written_by_nobody_else(tmp_path: Path) -> None:
    """Not a byte of it, nor of its journal; the server does what the command asks for."""
    database = await Database.open(tmp_path)
    keyring = await Keyring.open(database, Settings(data_dir=tmp_path), Clock())
    before = database_files(tmp_path)

    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        asked = group.create_task(
            create_key(tmp_path, name="k", tenant="default", lifetime_seconds=None)
        )
        while not await asyncio.to_thread(Orders(tmp_path).waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert database_files(tmp_path) == before
        assert not asked.done()
        await keyring.take_orders_once()
    assert asked.done()
    assert keyring.is_needed
    await database.close()


async def test_a_command_does_what_a_server_left_that_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = await Database.open(tmp_path)

    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        group.create_task(create_key(tmp_path, name="k", tenant="default", lifetime_seconds=None))
        while not await asyncio.to_thread(Orders(tmp_path).waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await database.close()

    assert capsys.readouterr().out.startswith("sk-")
    assert Orders(tmp_path).waiting() == []


async def test_a_key_of_another_folder_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await create_key(tmp_path, name="k", tenant="default", lifetime_seconds=None)

    with pytest.raises(KeyUnknown):
        await revoke_key(tmp_path, "key_0123456789abcdef")


def database_files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.glob("batch-api.db*")
        if not path.name.endswith("-shm")
    }
