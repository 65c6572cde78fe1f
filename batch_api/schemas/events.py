"""What webhooks say: OpenAI's event objects."""

from typing import Literal

import msgspec

from batch_api.lifecycle import BatchStatus
from batch_api.schemas.ids import event_id


class _Data(msgspec.Struct):
    id: str


class Event(msgspec.Struct):
    id: str
    type: str
    created_at: int
    data: _Data
    object: Literal["event"] = "event"

    @classmethod
    def of_end(cls, batch_id: str, status: BatchStatus, *, at: int) -> "Event":
        """Of a batch; always the same one."""
        return cls(event_id(batch_id), f"batch.{status}", at, _Data(batch_id))

    def as_json(self) -> bytes:
        return msgspec.json.encode(self)
