"""A tenant's session sees and touches that tenant's rows only, however it is asked."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    CompoundSelect,
    Select,
    Update,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from batch_api.store.database import Database
from batch_api.store.tables import (
    BatchRow,
    FileRow,
    IdempotencyKeyRow,
    Owned,
    PartRow,
    Table,
    UploadRow,
)
from batch_api.store.tenancy import NotFiltered, narrow
from tests.store.rows import add_batch, add_file, add_upload

FILES = Table.metadata.tables["files"]

BY_ORM: list[Callable[[], Any]] = [
    lambda: select(FileRow.id),
    lambda: select(aliased(FileRow).id),
    lambda: select(FileRow.id).where(FileRow.id == "file-b"),
    lambda: select(func.sum(FileRow.bytes)),
    lambda: select(literal("seen")).where(exists().where(FileRow.id == "file-b")),
    lambda: select(select(FileRow.id).where(FileRow.id == "file-b").scalar_subquery()),
    lambda: select(select(FileRow.id).where(FileRow.id == "file-b").cte().c.id),
    lambda: select(BatchRow.id).where(BatchRow.input_file_id.in_(select(FileRow.id))),
    lambda: select(FileRow.id).join(BatchRow, BatchRow.input_file_id == FileRow.id),
    lambda: select(UploadRow.id).join(PartRow, PartRow.upload_number == UploadRow.number),
    lambda: union_all(select(FileRow.id), select(BatchRow.id), select(PartRow.id)),
]
AROUND_THE_ORM: list[Callable[[], Any]] = [
    lambda: select(FILES),
    lambda: select(FILES.c.id).where(FILES.c.id == "file-b"),
    lambda: select(literal("seen")).select_from(FILES),
    lambda: select(BatchRow.id).join(FILES, FILES.c.id == BatchRow.input_file_id),
    lambda: select(BatchRow.id, FILES.c.id).where(FILES.c.id == BatchRow.input_file_id),
    lambda: select(FileRow).from_statement(text("SELECT * FROM files")),
    lambda: text("SELECT id FROM files"),
    lambda: text('SELECT f.id FROM "files" f'),
    lambda: text("SELECT id FROM batches, files"),
    lambda: text("DELETE FROM files"),
    lambda: text("UPDATE files SET tenant = 'a'"),
    lambda: delete(FILES),
    lambda: update(FILES).values(tenant="a"),
    lambda: insert(FILES).values(_file("file-x", tenant="b")),
    lambda: text(
        "INSERT INTO files (tenant, id, filename, purpose, bytes, sha256, created_at)"
        " VALUES ('b', 'file-x', '', '', 0, '', 0)"
    ),
]


def _file(id: str, *, tenant: str | None = None) -> dict[str, Any]:
    row = {"id": id, "filename": "", "purpose": "", "bytes": 1, "sha256": "", "created_at": 1}
    return row if tenant is None else row | {"tenant": tenant}


@pytest.fixture
async def bs(database: Database) -> Database:
    """Everything here is tenant B's."""
    await add_file(database, "file-b", tenant="b")
    await add_batch(database, "batch_b", input_file_id="file-b", tenant="b")
    await add_upload(database, "upload_b", "part_b", expires_at=100, tenant="b")
    return database


@pytest.mark.parametrize("statement", BY_ORM)
async def test_what_is_selected_is_the_tenants(
    bs: Database, statement: Callable[[], Select[Any] | CompoundSelect[Any]]
) -> None:
    async with bs.of("a").read() as session:
        seen = [row for row in await session.execute(statement()) if any(row)]
    async with bs.of("b").read() as session:
        own = (await session.execute(statement())).all()

    assert seen == []
    assert own


@pytest.mark.parametrize("statement", AROUND_THE_ORM)
async def test_what_goes_around_the_filter_fails(
    bs: Database, statement: Callable[[], Any]
) -> None:
    with pytest.raises(NotFiltered):
        async with bs.of("a").write.begin() as session:
            await session.execute(statement())
    with pytest.raises(NotFiltered):
        async with bs.of("a").write.begin() as session:
            await (await session.connection()).execute(statement())


@pytest.mark.parametrize("table", [FileRow, BatchRow, UploadRow])
async def test_a_row_is_not_found_by_its_primary_key(
    bs: Database, table: type[FileRow | BatchRow | UploadRow]
) -> None:
    async with bs.of("b").read() as session:
        assert await session.get(table, 1)
    async with bs.of("a").read() as session:
        assert await session.get(table, 1) is None
        with pytest.raises(Exception, match="No row was found"):
            await session.get_one(PartRow, "part_b")


@pytest.mark.parametrize(
    "change",
    [
        lambda: update(FileRow).where(FileRow.id == "file-b").values(bytes=7),
        lambda: update(FileRow).values(bytes=7),
        lambda: delete(FileRow).where(FileRow.id == "file-b"),
        lambda: delete(FileRow),
    ],
)
async def test_nobody_changes_or_deletes_what_is_anothers(
    bs: Database, change: Callable[[], Update]
) -> None:
    async with bs.of("a").write.begin() as session:
        await session.execute(change())

    async with bs.read() as session:
        assert await session.scalar(select(FileRow.bytes)) == 1


async def test_what_a_session_adds_is_its_tenants(database: Database) -> None:
    await add_file(database, "file-a", tenant="a")

    async with database.read() as session:
        assert await session.scalar(select(FileRow.tenant)) == "a"


async def test_a_row_can_not_be_added_for_another_tenant(database: Database) -> None:
    with pytest.raises(NotFiltered):
        async with database.of("a").write.begin() as session:
            session.add(FileRow(**_file("file-x", tenant="b")))
    rows = [_file("file-x", tenant="a"), _file("file-y", tenant="b")]
    with pytest.raises(NotFiltered):
        async with database.of("a").write.begin() as session:
            await session.execute(insert(FileRow), rows)


async def test_a_row_of_no_tenant_can_not_be_added(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write.begin() as session:
            session.add(FileRow(**_file("file-x")))


async def test_a_session_of_nobodys_in_particular_sees_everything(bs: Database) -> None:
    await add_file(bs, "file-a", tenant="a")

    async with bs.read() as session:
        assert set(await session.scalars(select(FileRow.id))) == {"file-a", "file-b"}


async def test_a_core_statement_can_be_narrowed_for_speed(bs: Database) -> None:
    await add_file(bs, "file-a", tenant="a")

    async with bs.of("a").read() as session:
        connection = await session.connection()
        rows = await connection.execute(narrow(session, select(FileRow.id), FileRow))

    assert rows.scalars().all() == ["file-a"]


async def test_the_same_idempotency_key_is_two_tenants(database: Database) -> None:
    for tenant in ("a", "b"):
        async with database.of(tenant).write.begin() as session:
            session.add(
                IdempotencyKeyRow(
                    operation="POST /", key="k", fingerprint="", object_id=tenant, expires_at=9
                )
            )

    async with database.of("b").read() as session:
        assert await session.scalar(select(IdempotencyKeyRow.object_id)) == "b"


def test_every_table_has_an_owner_or_hangs_on_one_that_has() -> None:
    """Requests and answers are reached through their batch; keys are the operator's."""
    without = {
        str(mapper.local_table)
        for mapper in Table.registry.mappers
        if not issubclass(mapper.class_, Owned)
    }

    assert without == {"requests", "answers", "api_keys"}
