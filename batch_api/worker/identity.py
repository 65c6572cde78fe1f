"""What all parts of one answer share."""

import hashlib
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(16)}"


def now() -> int:
    return int(time.time())


def fingerprint(model: str, engine: "Engine") -> str:
    """Another model, device or precision may answer the same seed with other words."""
    setup = f"{model} {engine.device} {engine.dtype}"
    return f"fp_{hashlib.sha256(setup.encode()).hexdigest()[:10]}"
