"""Counts in words."""


def counted(count: int, noun: str) -> str:
    """Such as `1 line`, `2 lines`."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    return f"{noun[:-2]}ches" if noun.endswith("ch") else f"{noun}s"
