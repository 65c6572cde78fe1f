"""What a server says of itself to anybody: nothing that would help who attacks it."""

import platform
import time
from typing import Any

from batch_api import __version__


def about() -> dict[str, Any]:
    """To be called as the server starts."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "api": "v1",
        "started_at": int(time.time()),
    }
