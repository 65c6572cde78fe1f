"""How numbers are told to people: on pages, and by commands."""

import re
from itertools import pairwise

_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_DURATIONS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_TEN = 10


def bytes_in_words(count: float) -> str:
    """Such as `1.5 MiB`."""
    unit = 0
    while round(count) >= _STEP and unit < len(_UNITS) - 1:
        count /= _STEP
        unit += 1
    shown = f"{count:.1f}" if unit and count < _TEN else f"{count:.0f}"
    return f"{shown} {_UNITS[unit]}"


def duration_in_words(seconds: float | None) -> str:
    """The two largest units, such as `2 h 05 min` or `1 min`; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(max(0.0, seconds))
    for (size, unit), (smaller_size, smaller_unit) in pairwise(_DURATIONS):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + f" {rest:02} {smaller_unit}" * bool(rest)
    return f"{whole} s"


def exact_duration_in_words(seconds: float | None) -> str:
    """Of what may be over in a moment, such as `85 ms`, `1.2 s`."""
    if seconds is None or seconds >= _TEN:
        return duration_in_words(seconds)
    milliseconds = round(1000 * max(0.0, seconds))
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{seconds:.1f} s"


def count_in_words(count: float | None) -> str:
    """With thin spaces between thousands; small ones with a digit after the point, if any."""
    if count is None:
        return "–"
    if count != int(count) and count < _TEN:
        return f"{count:.1f}"
    return f"{round(count):,}".replace(",", "\u202f")


def rate_in_words(each_second: float) -> str:
    """A second's share, as exact as is of use."""
    if each_second and each_second < _TEN:
        return f"{each_second:.2g}" if each_second < 1 else f"{each_second:.1f}"
    return count_in_words(round(each_second))


def counted(count: int, noun: str) -> str:
    """Such as `1 line`, `2 lines`."""
    return f"{count} {plural(count, noun)}"


def plural(count: float | None, noun: str) -> str:
    """The noun as it stands behind that count."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith("ch") else f"{noun}s"


def status_in_words(status: str) -> str:
    return status.replace("_", " ")


def error_in_words(error: BaseException) -> str:
    """Its first line as a part of a sentence, without the system's number."""
    told = _ERRNO.sub("", next(iter(str(error).splitlines()), "")).strip(" .")
    first, space, rest = (told or type(error).__name__).partition(" ")
    return (first.lower() if first.istitle() else first) + space + rest
