"""How the parts of one process tell each other that the store has news."""

import asyncio


class Wakeup:
    """Whoever moves a batch rings; whoever waits looks at the store again."""

    def __init__(self) -> None:
        self._bells: list[asyncio.Event] = []

    def bell(self) -> asyncio.Event:
        """Clear it before the look at the store, wait for it afterwards: no ring is lost."""
        bell = asyncio.Event()
        self._bells.append(bell)
        return bell

    def ring(self) -> None:
        for bell in self._bells:
            bell.set()
