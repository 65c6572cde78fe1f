"""The ids that clients see."""

import hashlib
import secrets
import string
from random import Random

_random = Random()  # noqa: S311 seeded by the system
_BASE62 = string.digits + string.ascii_letters


def file_id() -> str:
    return "file-" + "".join(secrets.choice(_BASE62) for _ in range(22))


def upload_id() -> str:
    return f"upload_{secrets.token_hex(16)}"


def part_id() -> str:
    return f"part_{secrets.token_hex(16)}"


def batch_id() -> str:
    return f"batch_{secrets.token_hex(16)}"


def key_id() -> str:
    """Tells nothing of the key."""
    return f"key_{secrets.token_hex(8)}"


def event_id(batch_id: str) -> str:
    """Of its end: the same each time that it is told, and to whomever."""
    return f"evt_{hashlib.sha256(batch_id.encode()).hexdigest()[:32]}"


def request_id() -> str:
    """Unique, and no secret: the system's randomness costs a call of the kernel for each."""
    return f"req_{_random.getrandbits(128):032x}"


def line_id(batch_id: str, line: int) -> str:
    """Of a line of an output file: the same each time that the file is written."""
    return f"batch_req_{hashlib.sha256(f'{batch_id}:{line}'.encode()).hexdigest()[:32]}"
