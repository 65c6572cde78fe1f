"""Batch statuses, request states and the moves between them. Pure: no clock, no store."""

from enum import StrEnum


class BatchStatus(StrEnum):
    """OpenAI's eight words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not _NEXT_STATUS[self]

    def can_become(self, new: "BatchStatus") -> bool:
        return new in _NEXT_STATUS[self]


class RequestState(StrEnum):
    """What has become of one line of a batch."""

    PENDING = "pending"
    LEASED = "leased"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return not _NEXT_STATE[self]

    def can_become(self, new: "RequestState") -> bool:
        return new in _NEXT_STATE[self]


class UploadStatus(StrEnum):
    """OpenAI's four words; from `pending` to any of the others, and no further."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class DeliveryState(StrEnum):
    """What has become of an event that a receiver is to hear of; `pending` is left once."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


_NEXT_STATUS: dict[BatchStatus, set[BatchStatus]] = {
    BatchStatus.VALIDATING: {BatchStatus.IN_PROGRESS, BatchStatus.FAILED, BatchStatus.CANCELLING},
    BatchStatus.IN_PROGRESS: {BatchStatus.FINALIZING, BatchStatus.CANCELLING},
    BatchStatus.FINALIZING: {BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLING},
    BatchStatus.CANCELLING: {BatchStatus.CANCELLED},
    BatchStatus.FAILED: set(),
    BatchStatus.COMPLETED: set(),
    BatchStatus.EXPIRED: set(),
    BatchStatus.CANCELLED: set(),
}

_NEXT_STATE: dict[RequestState, set[RequestState]] = {
    RequestState.PENDING: {RequestState.LEASED, RequestState.CANCELLED, RequestState.EXPIRED},
    RequestState.LEASED: {
        RequestState.PENDING,
        RequestState.COMPLETED,
        RequestState.FAILED,
        RequestState.CANCELLED,
        RequestState.EXPIRED,
    },
    RequestState.COMPLETED: set(),
    RequestState.FAILED: set(),
    RequestState.CANCELLED: set(),
    RequestState.EXPIRED: set(),
}

FINAL_STATUSES = frozenset(status for status in BatchStatus if status.is_final)
FINAL_STATES = frozenset(state for state in RequestState if state.is_final)
