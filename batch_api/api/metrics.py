"""`GET /metrics`: what was counted since the start, and what the store and the disk say now."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fastapi import APIRouter, Response
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from batch_api.api.deps import NobodysParts, Registry, Trouble, WorkOfAll
from batch_api.api.documents import errors
from batch_api.lifecycle import BatchStatus
from batch_api.metrics import exposition
from batch_api.store.database import bytes_on_disk
from batch_api.store.room import Room
from batch_api.store.totals import Work
from batch_api.upstreams import Upstreams

router = APIRouter(tags=["health"])

_FIGURES = {
    "description": "In Prometheus' text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses=errors(403) | {200: _FIGURES},
)
async def metrics(
    work: WorkOfAll, registry: Registry, parts: NobodysParts, trouble: Trouble
) -> Response:
    """In Prometheus' text format; sums over all tenants, for the operator."""
    families = [
        *_of_work(work, now=parts.clock.now()),
        *_of_upstreams(parts.upstreams),
        *_of_disk(parts.blobs.room),
        *_of_database(parts.settings.data_dir, trouble),
    ]
    return exposition(registry, families)


def _of_work(work: Work, *, now: float) -> Iterator[Metric]:
    active = {str(status): 0 for status in BatchStatus if not status.is_final}
    active |= {str(group.status): group.batches for group in work.groups}
    yield _gauges("batch_api_batches", "Batches that are not over.", "status", active)
    lines = {
        "pending": work.pending,
        "in_flight": work.leased,
        "completed": sum(group.completed for group in work.groups),
        "failed": sum(group.failed for group in work.groups),
    }
    yield _gauges("batch_api_lines", "Lines of batches that are not over.", "state", lines)
    yield _gauge(
        "batch_api_oldest_batch_age_seconds",
        "Since the oldest batch that is not over was created; 0 without one.",
        max([0.0, *(now - group.oldest_created_at for group in work.groups)]),
    )
    deadlines = [group.next_expires_at for group in work.groups if group.next_expires_at]
    yield _gauge(
        "batch_api_deadline_margin_seconds",
        "Until the nearest deadline of a batch that is not over; none without one.",
        min(deadlines) - now if deadlines else None,
    )
    yield _gauge(
        "batch_api_needed_lines_per_second",
        "Lines to answer a second, from now on, for no batch to miss its deadline.",
        work.needed_lines_per_second,
    )
    yield _gauge("batch_api_stored_bytes", "Of all files.", work.stored_bytes)
    yield _gauge("batch_api_webhooks_pending", "Webhooks that wait to be told.", work.webhooks)
    oldest_at = work.oldest_webhook_at
    yield _gauge(
        "batch_api_oldest_webhook_age_seconds",
        "Since the end of a batch that a receiver has not heard of yet; 0 without one.",
        0 if oldest_at is None else max(0.0, now - oldest_at),
    )


def _of_upstreams(upstreams: Upstreams) -> Iterator[Metric]:
    facts = upstreams.facts()
    up = {each.url: each.is_up for each in facts}
    in_flight = {each.url: each.in_flight for each in facts}
    limits = {each.url: each.limit for each in facts}
    yield _gauges("batch_api_upstream_up", "Whether it answers, as far as known.", "upstream", up)
    yield _gauges(
        "batch_api_upstream_in_flight", "Requests that are there now.", "upstream", in_flight
    )
    yield _gauges(
        "batch_api_upstream_limit",
        "Requests of batches that it is given at once, as it stands.",
        "upstream",
        limits,
    )


def _of_disk(room: Room) -> Iterator[Metric]:
    yield _gauge("batch_api_disk_free_bytes", "Left on the disk.", room.free_bytes())
    yield _gauge(
        "batch_api_disk_min_free_bytes",
        "Below it nothing more is taken in; below half of it nothing more is sent.",
        room.min_free_bytes(),
    )


def _of_database(folder: Path, trouble: Exception | None) -> Iterator[Metric]:
    database_bytes, log_bytes = bytes_on_disk(folder)
    yield _gauge("batch_api_database_bytes", "Of the database.", database_bytes)
    yield _gauge("batch_api_wal_bytes", "Of its write-ahead log.", log_bytes)
    yield _gauge(
        "batch_api_store_troubled",
        "Whether something could not be written in the last half minute.",
        trouble is not None,
    )


def _gauge(name: str, told: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, told, value)


def _gauges(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
