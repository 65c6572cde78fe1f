"""For schemathesis: half of the uploads are what a batch can read, or no batch would ever begin."""

from typing import Any

import schemathesis

_LINE = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body":'
    b' {"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": "2"}]}}\n'
)


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    operation = context.operation
    is_upload = operation is not None and operation.label == "POST /v1/files"
    if is_upload and isinstance(body, dict) and _is_whole(body):
        return body | {"purpose": "batch", "file": _LINE}
    return body


def _is_whole(body: dict[str, Any]) -> bool:
    """Nothing is wrong with the parts that are replaced: what is meant to be wrong stays so."""
    return body.get("purpose") in ("batch", "vision", "evals") and isinstance(
        body.get("file"), (str, bytes)
    )
