"""`/v1/batches/{id}/webhooks`, ours beyond OpenAI: who was told of its end, and who was not."""

from math import ceil

from fastapi import APIRouter

from batch_api.api.batch_object import find_batch
from batch_api.api.deps import AllParts, Parts
from batch_api.api.documents import errors
from batch_api.lifecycle import DeliveryState
from batch_api.schemas.batches import BatchWebhook, BatchWebhooks
from batch_api.store import deliveries
from batch_api.store.tables import DeliveryRow
from batch_api.store.tenancy import DEFAULT_TENANT

router = APIRouter(prefix="/v1/batches", tags=["batches"])


@router.get("/{id}/webhooks", operation_id="listWebhooks", responses=errors(404))
async def listing(id: str, parts: Parts) -> BatchWebhooks:
    """From the end of the batch on, for a week after each was delivered or given up."""
    return BatchWebhooks(data=await webhooks_of(id, parts))


async def webhooks_of(id: str, parts: AllParts) -> list[BatchWebhook]:
    """Whom the settings name only the operator's tenant sees. Raises NotFound."""
    async with parts.database.read() as session:
        batch = await find_batch(session, id)
        rows = await deliveries.of_batch(session, id)
    is_operator = parts.database.tenant == DEFAULT_TENANT
    return [_webhook(row) for row in rows if is_operator or row.url == batch.webhook_url]


def _webhook(row: DeliveryRow) -> BatchWebhook:
    return BatchWebhook(
        receiver=row.origin,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        failure=row.failure,
        next_at=ceil(row.next_at) if row.state == DeliveryState.PENDING else None,
        over_at=row.over_at,
    )
