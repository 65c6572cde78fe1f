"""`batch-api status`: how a server stands, from what it tells everybody."""

from typing import TYPE_CHECKING, Any

from batch_api.client.telling import print_json, print_table, tell_batches
from batch_api.in_words import bytes_in_words
from batch_api.lifecycle import BatchStatus

if TYPE_CHECKING:
    from batch_api.client.remote import Remote

_LOOKED_AT = 100
_READY, _NOT_READY = 0, 1


def tell_standing(remote: "Remote", *, as_json: bool) -> int:
    """The exit code: 0 if it is ready. Raises Unusable."""
    report = remote.readiness()
    models = remote.models() if report.status == "ready" else []
    newest = list(remote.batches(_LOOKED_AT))
    working = [batch for batch in newest if not BatchStatus(batch.status).is_final]
    if as_json:
        batches = [batch.to_dict(mode="json") for batch in working]
        print_json({**report.to_dict(mode="json"), "models": models, "batches": batches})
    else:
        print(f"{remote.url} is {report.status}")
        print_table([[name, _told(check)] for name, check in report.checks.items()])
        print_table([["models", " ".join(models) or "none"]])
        tell_batches(working, as_json=False)
    return _READY if report.status == "ready" else _NOT_READY


def _told(check: dict[str, Any]) -> str:
    facts = [_fact(name, value) for name, value in check.items() if name != "status"]
    return " ".join([str(check.get("status", "?")), *facts])


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{name.removesuffix('_bytes')}={bytes_in_words(value).replace(' ', '')}"
    return f"{name}={value}"
