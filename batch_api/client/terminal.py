"""What others wrote, on the way to a terminal."""

import sys


def shown(text: str) -> str:
    """It must not steer the terminal."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in text)


def say(sentence: str) -> None:
    print(shown(sentence), file=sys.stderr, flush=True)
