"""How many requests a tenant may make in a minute: a bucket of tokens for each, in memory."""

import math
from dataclasses import dataclass

from batch_api.clock import Clock
from batch_api.errors import TooManyRequests

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    """Monotonic."""


class Rates:
    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, tenant: str, count: int = 1) -> dict[str, str]:
        """So many tokens, if there are; the headers that tell how it stands.

        Raises TooManyRequests.
        """
        bucket = self._filled(tenant)
        if bucket.tokens < count:
            raise self._exhausted(bucket, count)
        bucket.tokens -= count
        return self._headers(bucket)

    def _filled(self, tenant: str) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(tenant, _Bucket(self._per_minute, now))
        grown = bucket.tokens + (now - bucket.filled_at) * self._per_minute / _MINUTE
        bucket.tokens, bucket.filled_at = min(grown, self._per_minute), now
        return bucket

    def _exhausted(self, bucket: _Bucket, count: int) -> TooManyRequests:
        if count > self._per_minute:
            return TooManyRequests(
                f"Rate limit for requests: Limit {self._per_minute} / min, and these are {count}.",
                headers=self._headers(bucket) | {"x-should-retry": "false"},
            )
        seconds = (count - bucket.tokens) * _MINUTE / self._per_minute
        return TooManyRequests(
            f"Rate limit reached for requests: Limit {self._per_minute} / min. "
            f"Please try again in {_duration(seconds)}.",
            headers=self._headers(bucket)
            | {
                "retry-after": str(math.ceil(seconds)),
                "retry-after-ms": str(math.ceil(1000 * seconds)),
            },
        )

    def _headers(self, bucket: _Bucket) -> dict[str, str]:
        missing = self._per_minute - bucket.tokens
        return {
            "x-ratelimit-limit-requests": str(self._per_minute),
            "x-ratelimit-remaining-requests": str(int(bucket.tokens)),
            "x-ratelimit-reset-requests": _duration(missing * _MINUTE / self._per_minute),
        }


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 8.64s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(1000 * seconds)}ms"
    minutes, rest = divmod(round(seconds, 2), _MINUTE)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:g}s"
