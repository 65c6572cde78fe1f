"""A clock that a test turns by hand."""

from batch_api.clock import Clock

START = 1_795_000_000.0


class TurnableClock(Clock):
    """Wall and monotonic time stand still until they are set, each on its own or both by `turn`."""

    def __init__(self) -> None:
        self.wall = START
        self.steady = 1_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def turn(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds
