"""The two clocks of the product, in one object that tests can turn.

Moments that a client sees, and deadlines, are wall time. Leases run on monotonic time, so that a
jump of the wall clock takes no request from its holder.
"""

import time


class Clock:
    def now(self) -> float:
        """Wall time, Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some fixed moment; starts anew with the machine."""
        return time.monotonic()
