"""Where a batch may have its end told: to the hosts that the operator names, and nowhere else."""

import re

from batch_api.errors import BadRequest
from batch_api.origins import leads_to, origin
from batch_api.settings import WEBHOOK_URL, Settings


def check_webhook(url: str | None, settings: Settings) -> None:
    """Raises BadRequest."""
    if url is None:
        return
    if not re.fullmatch(WEBHOOK_URL, url):
        raise _refusal(
            "it must be an http or https URL in ASCII, without a name, a password or a fragment.",
            "invalid_value",
        )
    if not leads_to(url, settings.webhook_hosts):
        raise _refusal(
            f"this server sends webhooks only to the hosts in BATCH_API_WEBHOOK_HOSTS, which its "
            f"operator sets, and {origin(url)[:100]!r} is none of them.",
            "webhook_host_not_allowed",
        )


def _refusal(reason: str, code: str) -> BadRequest:
    return BadRequest(f"Invalid value for 'webhook_url': {reason}", param="webhook_url", code=code)
