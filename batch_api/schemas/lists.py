"""The envelope of every list."""

from collections.abc import Sequence
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel

from batch_api.schemas.batches import Batch
from batch_api.schemas.files import File

Item = TypeVar("Item", File, Batch)


class Listing(BaseModel, Generic[Item]):
    object: Literal["list"] = "list"
    data: Sequence[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[Item], *, has_more: bool) -> Self:
        """An empty page ends the list: there is no id to go on after."""
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more and bool(data),
        )
