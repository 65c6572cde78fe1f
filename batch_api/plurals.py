"""Counts in words."""


def counted(count: int, noun: str) -> str:
    """Such as `1 line`, `2 lines`."""
    return f"{count} {plural(count, noun)}"


def plural(count: float | None, noun: str) -> str:
    """The noun as it stands behind that count."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith("ch") else f"{noun}s"
