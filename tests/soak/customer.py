"""A faithful client: orders batches, remembers what was acknowledged, and checks all of it."""

import threading
import time
from collections.abc import Iterator

from openai import BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from tests.soak.orders import Order
from tests.soak.persistence import GivenUp, Persistence, is_gone, once
from tests.soak.verdict import wrong_with

_MOST_OPEN = 4
_POLL_SECONDS = 0.2


class Customer:
    def __init__(
        self,
        client: OpenAI,
        orders: Iterator[Order],
        *,
        closing: threading.Event,
        stop: threading.Event,
    ) -> None:
        """`closing`: nothing more is ordered; `stop`: nobody waits any more."""
        self.orders: list[Order] = []
        self.complaints: list[str] = []
        self._client = client
        self._new = orders
        self._closing = closing
        self._stop = stop
        self._persistence = Persistence(stop)

    def live(self) -> None:
        """Until all that was ordered has come, and has been looked at."""
        try:
            while not self._closing.is_set() or self._open:
                if len(self._open) < _MOST_OPEN and not self._closing.is_set():
                    self._place(next(self._new))
                for order in self._open:
                    self._look_after(order)
                self._stop.wait(_POLL_SECONDS)
        except GivenUp as error:
            waiting = [f"{order.name} {order.batch_id}" for order in self._open]
            self.complaints.append(f"gave up waiting for {waiting}: {error}")
        except Exception as error:  # noqa: BLE001 it is told at the end
            self.complaints.append(f"a call failed that should not: {error!r}")

    def look_again(self) -> None:
        """What is over has not changed, and what was deleted has not come back."""
        for order in self.orders:
            for id in order.gone:
                if not is_gone(self._client, self._persistence, id):
                    self._complain(order, f"{id} was deleted and is there again")
            if order.batch_id and order.batch_id not in order.gone:
                batch = self._retrieve(order)
                if batch.status != order.status:
                    self._complain(order, f"was {order.status} and is {batch.status}")
            for id, content in order.contents.items():
                if id not in order.gone and self._content(id) != content:
                    self._complain(order, f"{id} has changed")

    @property
    def _open(self) -> list[Order]:
        return [order for order in self.orders if order.status is None]

    def _place(self, order: Order) -> None:
        """The order is remembered from the moment on in which something of it may be there."""
        self.orders.append(order)
        order.file_id = self._upload(order)
        ids = {self._create(order) for _ in range(2 if order.is_repeated else 1)}
        order.batch_id, *more = ids
        order.created_at = time.monotonic()
        if more:
            self._complain(order, f"one key made several batches: {ids}")

    def _create(self, order: Order) -> str:
        assert order.file_id is not None
        file_id = order.file_id
        return self._persistence.get(
            lambda: self._client.batches.create(
                input_file_id=file_id,
                endpoint=order.endpoint,
                completion_window=order.window,  # type: ignore[arg-type]
                metadata={"order": order.name},
                extra_headers=once(f"{order.name}-batch"),
            )
        ).id

    def _upload(self, order: Order) -> str:
        if not order.in_parts:
            file = ("input.jsonl", order.input)
            key = once(f"{order.name}-file")
            return self._persistence.get(
                lambda: self._client.files.create(file=file, purpose="batch", extra_headers=key)
            ).id
        for attempt in range(10):
            try:
                return self._upload_in_parts(order, f"{order.name}-{attempt}")
            except BadRequestError:  # it expired, for the clock has jumped
                continue
        raise AssertionError("no upload in parts succeeds")

    def _upload_in_parts(self, order: Order, name: str) -> str:
        content = order.input
        upload = self._persistence.get(
            lambda: self._client.uploads.create(
                bytes=len(content),
                filename="input.jsonl",
                mime_type="application/jsonl",
                purpose="batch",
                extra_headers=once(f"{name}-upload"),
            )
        )
        middle = len(content) // 2
        parts = [
            self._persistence.get(
                lambda data=data, key=key: self._client.uploads.parts.create(  # type: ignore[misc]
                    upload.id, data=data, extra_headers=once(key)
                )
            ).id
            for key, data in ((f"{name}-1", content[:middle]), (f"{name}-2", content[middle:]))
        ]
        whole = self._persistence.get(
            lambda: self._client.uploads.complete(upload.id, part_ids=parts)
        )
        assert whole.file is not None
        return whole.file.id

    def _look_after(self, order: Order) -> None:
        assert order.file_id is not None
        age = time.monotonic() - order.created_at
        if order.cancel_after_seconds is not None and age > order.cancel_after_seconds:
            self._cancel(order)
        if order.drops_input and not order.has_dropped_input:
            self._delete_file(order, order.file_id)
            order.has_dropped_input = True
        batch = self._retrieve(order)
        if BatchStatus(batch.status).is_final:
            self._conclude(order, batch)

    def _cancel(self, order: Order) -> None:
        if order.cancel_was_acknowledged:
            return
        try:
            batch = self._persistence.get(lambda: self._client.batches.cancel(_id(order)))
        except ConflictError:  # it is over
            order.cancel_after_seconds = None
            return
        order.cancel_was_acknowledged = True
        if batch.status not in ("cancelling", "cancelled"):
            self._complain(order, f"a cancel was acknowledged with {batch.status}")

    def _conclude(self, order: Order, batch: Batch) -> None:
        for id in filter(None, (batch.output_file_id, batch.error_file_id)):
            order.contents[id] = self._content(id)
        for complaint in wrong_with(order, batch):
            self._complain(order, complaint)
        order.status = batch.status
        if order.drops_results:
            for id in order.contents:
                self._delete_file(order, id)
        if order.drops_batch:
            path = f"/batches/{_id(order)}"  # the SDK has no name for it
            self._persistence.remove(lambda: self._client.delete(path, cast_to=object))
            order.gone.add(_id(order))

    def _retrieve(self, order: Order) -> Batch:
        try:
            return self._persistence.get(lambda: self._client.batches.retrieve(_id(order)))
        except NotFoundError as error:
            raise AssertionError(f"{_id(order)} was acknowledged and is gone") from error

    def _content(self, id: str) -> bytes:
        return self._persistence.get(lambda: self._client.files.content(id).content)

    def _delete_file(self, order: Order, id: str) -> None:
        self._persistence.remove(lambda: self._client.files.delete(id))
        order.gone.add(id)

    def _complain(self, order: Order, what: str) -> None:
        self.complaints.append(f"{order.name} ({order.batch_id}): {what}")


def _id(order: Order) -> str:
    assert order.batch_id is not None
    return order.batch_id
