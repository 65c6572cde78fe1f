"""`Idempotency-Key`: a creating call that is sent again creates nothing more."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.errors import BadRequest
from batch_api.store import idempotency
from batch_api.store.idempotency import KeyReused


@dataclass(frozen=True, slots=True)
class Creation:
    """A call that creates an object, and the key that it came under, if any."""

    operation: str
    key: str | None

    async def claim(
        self, session: AsyncSession, object_id: str, *, asked: object, now: float
    ) -> str:
        """The id of what the same call created before, or else `object_id`.

        To be called in the transaction that creates the object. `asked` is what the client asks
        for, as JSON. Raises BadRequest if the key was given with something else before.
        """
        if self.key is None:
            return object_id
        try:
            return await idempotency.claim(
                session,
                operation=self.operation,
                key=self.key,
                fingerprint=hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
                object_id=object_id,
                now=now,
            )
        except KeyReused as error:
            raise BadRequest(
                "This Idempotency-Key was used for another request before.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            ) from error
