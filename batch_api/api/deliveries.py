"""`/v1/batches/{id}/webhooks`, ours beyond OpenAI: who was told of its end, and who was not."""

from math import ceil

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.batch_object import find_batch
from batch_api.api.deps import Parts
from batch_api.api.documents import errors
from batch_api.lifecycle import DeliveryState
from batch_api.schemas.batches import BatchWebhook, BatchWebhooks
from batch_api.store import deliveries
from batch_api.store.tables import BatchRow, DeliveryRow
from batch_api.store.tenancy import DEFAULT_TENANT

router = APIRouter(prefix="/v1/batches", tags=["batches"])


@router.get("/{id}/webhooks", operation_id="listWebhooks", responses=errors(404))
async def listing(id: str, parts: Parts) -> BatchWebhooks:
    """From the end of the batch on, for a week after each was delivered or given up."""
    async with parts.database.read() as session:
        batch = await find_batch(session, id)
        return BatchWebhooks(data=await webhooks_of(session, batch))


async def webhooks_of(session: AsyncSession, batch: BatchRow) -> list[BatchWebhook]:
    """Whom the settings name only the operator's tenant sees."""
    rows = await deliveries.of_batch(session, batch.id)
    is_operator = batch.tenant == DEFAULT_TENANT
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
