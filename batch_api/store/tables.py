"""The tables, and the lifecycle restated as constraints. No statements here."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from batch_api.lifecycle import (
    FINAL_STATUSES,
    BatchStatus,
    DeliveryState,
    RequestState,
    UploadStatus,
)

# SQLite numbers rows by itself only in a column of exactly this type.
_Number = BigInteger().with_variant(Integer, "sqlite")
# A late answer for what was deleted must not find a new row under the old number.
_NEVER_REUSED = {"sqlite_autoincrement": True}
# Narrow rows that are read by their first keys: no second tree beside the keys'.
_IN_ORDER_OF_KEYS = {"sqlite_with_rowid": False}


def _one_of(column: str, words: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(word)) for word in words)})"


def _is_final() -> str:
    return _one_of("status", sorted(FINAL_STATUSES))


def _finals_have_their_moment() -> str:
    return " AND ".join(
        f"(status != '{status}' OR {status}_at IS NOT NULL)" for status in sorted(FINAL_STATUSES)
    )


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger, dict[str, Any]: JSON}  # noqa: RUF012 read by SQLAlchemy


class Owned:
    """A row of one tenant: `store.tenancy` filters by it, and fills it in."""

    tenant: Mapped[str]


class FileRow(Owned, Table):
    """An uploaded or written file; its bytes lie in the blob of the same id."""

    __tablename__ = "files"

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    """Grows with every file: the order of lists."""
    id: Mapped[str] = mapped_column(unique=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]

    __table_args__ = (
        # With the bytes, so that a tenant's can be added up from the index alone.
        Index("ix_files_listed", "tenant", "number", "bytes"),
        Index("ix_files_listed_by_purpose", "tenant", "purpose", "number", "bytes"),
        Index("ix_files_by_size", "tenant", "bytes"),
    )


class BatchRow(Owned, Table):
    __tablename__ = "batches"

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    """Grows with every batch: the order of lists, and of work."""
    id: Mapped[str] = mapped_column(unique=True)
    endpoint: Mapped[str]
    completion_window: Mapped[str]
    model: Mapped[str | None]
    status: Mapped[str]
    input_file_id: Mapped[str] = mapped_column(index=True)
    input_bytes: Mapped[int] = mapped_column(default=0)
    output_file_id: Mapped[str] = mapped_column(unique=True)
    """Chosen at creation, so that finalizing twice writes the same file."""
    error_file_id: Mapped[str] = mapped_column(unique=True)
    continues_id: Mapped[str | None]
    """The batch whose lines without an answer this one runs; it may be deleted meanwhile."""
    earlier_output_file_id: Mapped[str | None] = mapped_column(index=True)
    """That batch's answers, which this one takes over when it is validated."""
    earlier_completed: Mapped[int] = mapped_column(default=0)
    """How many they are."""
    output_expires_after_seconds: Mapped[int | None]
    # `metadata` is taken by SQLAlchemy.
    labels: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    webhook_url: Mapped[str | None]
    """Who is told of its end, besides those that the settings name."""
    errors: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))

    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    in_progress_at: Mapped[int | None]
    finalizing_at: Mapped[int | None]
    completed_at: Mapped[int | None]
    failed_at: Mapped[int | None]
    expired_at: Mapped[int | None]
    cancelling_at: Mapped[int | None]
    cancelled_at: Mapped[int | None]
    trimmed_at: Mapped[int | None]
    """When the final batch's answers were dropped from the database; the files have them."""
    removed_at: Mapped[int | None]
    """Nobody sees it any more; its rows go in pieces, and this one last."""

    total: Mapped[int | None]
    """Lines of the input; null until all of them are validated."""
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    """Of those that failed, the ones that an upstream refused for what they ask."""
    input_tokens: Mapped[int] = mapped_column(default=0)
    cached_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    reasoning_tokens: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        Index(
            "ix_batches_open",
            "status",
            "number",
            sqlite_where=text("trimmed_at IS NULL"),
            postgresql_where=text("trimmed_at IS NULL"),
        ),
        Index(None, "tenant", "number"),
        Index(
            "ix_batches_active",
            "tenant",
            "status",
            sqlite_where=text("trimmed_at IS NULL"),
            postgresql_where=text("trimmed_at IS NULL"),
        ),
        Index(
            "ix_batches_removed",
            "number",
            sqlite_where=text("removed_at IS NOT NULL"),
            postgresql_where=text("removed_at IS NOT NULL"),
        ),
        Index(
            "ix_batches_removed_of",
            "tenant",
            "removed_at",
            sqlite_where=text("removed_at IS NOT NULL"),
            postgresql_where=text("removed_at IS NOT NULL"),
        ),
        CheckConstraint(_one_of("status", BatchStatus), name="status"),
        CheckConstraint(f"removed_at IS NULL OR {_is_final()}", name="removed"),
        CheckConstraint(_finals_have_their_moment(), name="final_moment"),
        CheckConstraint("completed >= 0 AND failed >= 0", name="counts_positive"),
        CheckConstraint("completed + failed <= coalesce(total, 0)", name="counts"),
        _NEVER_REUSED,
    )

    @property
    def is_over(self) -> bool:
        return BatchStatus(self.status).is_final

    @property
    def has_output_file(self) -> bool:
        return self._is_published and self.completed > 0

    @property
    def has_error_file(self) -> bool:
        return self._is_published and self.completed < (self.total or 0)

    @property
    def _is_published(self) -> bool:
        return self.is_over and self.status != BatchStatus.FAILED

    @property
    def read_file_ids(self) -> list[str]:
        """Whose bytes it needs until it is over."""
        earlier = self.earlier_output_file_id
        return [self.input_file_id] if earlier is None else [self.input_file_id, earlier]


class RequestRow(Table):
    """One line of a batch's input. Its body stays in the file; here stands where."""

    __tablename__ = "requests"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    """Grows in the order of dispatch, which need not be the order of lines."""
    batch_number: Mapped[int] = mapped_column(ForeignKey("batches.number"))
    line: Mapped[int]
    """Counted from 1, blank lines too."""
    custom_id: Mapped[str]
    body_offset: Mapped[int]
    body_length: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=0)
    """Counts leases, but for those that were put back unsent: the fencing token."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that failed for the request's own sake, not for want of an upstream."""
    seconds: Mapped[float | None]
    """How long the attempt took that ended it."""
    leased_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    """Monotonic seconds, as `leased_until`; a new process sets both back."""

    __table_args__ = (
        UniqueConstraint("batch_number", "line"),
        Index(
            "ix_requests_pending",
            "batch_number",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_requests_leased",
            "batch_number",
            "leased_until",
            sqlite_where=text("state = 'leased'"),
            postgresql_where=text("state = 'leased'"),
        ),
        CheckConstraint(_one_of("state", RequestState), name="state"),
        Index(
            "ix_requests_failed",
            "batch_number",
            "line",
            sqlite_where=text("state = 'failed'"),
            postgresql_where=text("state = 'failed'"),
        ),
        CheckConstraint("(state = 'leased') = (leased_until IS NOT NULL)", name="lease"),
        _NEVER_REUSED,
    )


class AnswerRow(Table):
    """A whole line of the output or error file, kept until the files are written."""

    __tablename__ = "answers"

    request_id: Mapped[int] = mapped_column(
        ForeignKey("requests.id"), primary_key=True, autoincrement=False
    )
    line: Mapped[bytes] = mapped_column(LargeBinary)


class ProgressRow(Owned, Table):
    """What a batch did in one interval, which begins at `at`; `store.progress` says how long."""

    __tablename__ = "progress"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, index=True)
    batch_number: Mapped[int] = mapped_column(
        ForeignKey("batches.number"), primary_key=True, autoincrement=False, index=True
    )
    completed: Mapped[int]
    failed: Mapped[int]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]

    __table_args__ = _IN_ORDER_OF_KEYS


class LatencyRow(Owned, Table):
    """How many lines of a batch took about so long, in one interval: a bar of a histogram."""

    __tablename__ = "latencies"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, index=True)
    batch_number: Mapped[int] = mapped_column(
        ForeignKey("batches.number"), primary_key=True, autoincrement=False, index=True
    )
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    lines: Mapped[int]

    __table_args__ = _IN_ORDER_OF_KEYS


class DeliveryRow(Owned, Table):
    """The end of a batch, to be told to one receiver. It outlives the batch's own row."""

    __tablename__ = "deliveries"

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    batch_id: Mapped[str]
    status: Mapped[str]
    """The batch's last."""
    ended_at: Mapped[int]
    url: Mapped[str]
    origin: Mapped[str]
    """Of the URL, which may tell secrets further on."""
    state: Mapped[str] = mapped_column(default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    """That have ended."""
    failure: Mapped[str | None]
    """Of the last attempt that failed."""
    next_at: Mapped[float]
    """When it is tried next, wall time."""
    over_at: Mapped[int | None]
    """When it was delivered or given up."""

    __table_args__ = (
        UniqueConstraint("batch_id", "url"),
        Index(
            "ix_deliveries_pending",
            "url",
            "next_at",
            "number",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(None, "over_at"),
        Index(None, "tenant", "number"),
        CheckConstraint(_is_final(), name="status"),
        CheckConstraint(_one_of("state", DeliveryState), name="state"),
        CheckConstraint("(state = 'pending') = (over_at IS NULL)", name="over"),
    )


class UploadRow(Owned, Table):
    """A file that is sent in parts, until they are put together."""

    __tablename__ = "uploads"

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    mime_type: Mapped[str]
    bytes: Mapped[int]
    """As declared: what its parts must add up to."""
    file_expires_after_seconds: Mapped[int | None]
    status: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int]
    part_ids: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """What it was completed with, in order."""
    file_id: Mapped[str | None] = mapped_column(unique=True)

    __table_args__ = (
        Index(
            "ix_uploads_pending",
            "expires_at",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
        CheckConstraint(_one_of("status", UploadStatus), name="status"),
        CheckConstraint("(status = 'completed') = (file_id IS NOT NULL)", name="file"),
        CheckConstraint("(file_id IS NULL) = (part_ids IS NULL)", name="part_ids"),
        CheckConstraint("bytes > 0", name="bytes_positive"),
    )


class PartRow(Owned, Table):
    """A part of a pending upload; its bytes lie in the blob of the same id."""

    __tablename__ = "parts"

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_number: Mapped[int] = mapped_column(ForeignKey("uploads.number"), index=True)
    bytes: Mapped[int]
    created_at: Mapped[int]

    __table_args__ = (Index(None, "tenant", "bytes"),)


class IdempotencyKeyRow(Owned, Table):
    """A creating call that was made under a key, and what it created."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    """Of what was asked for: the same key with anything else is a mistake."""
    object_id: Mapped[str]
    expires_at: Mapped[int] = mapped_column(index=True)


class KeyRow(Table):
    """An API key; of its secret only the hash. Never deleted: who had a key always needs one."""

    __tablename__ = "api_keys"

    number: Mapped[int] = mapped_column(_Number, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    name: Mapped[str]
    tenant: Mapped[str]
    """Whose rows it opens; itself it is the operator's, not the tenant's."""
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]
    """To the minute or so."""

    __table_args__ = (
        CheckConstraint("length(sha256) = 32", name="sha256"),
        CheckConstraint("tenant != ''", name="tenant"),
    )
