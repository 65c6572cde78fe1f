"""Templates, and the filters they have. Whatever they show is text: all is escaped."""

from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from batch_api.dashboard.static import address
from batch_api.in_words import (
    bytes_in_words,
    count_in_words,
    duration_in_words,
    exact_duration_in_words,
    plural,
    rate_in_words,
)

NAVIGATION = (
    ("/", "Batches"),
    ("/activity", "Activity"),
    ("/workers", "Workers"),
    ("/storage", "Storage"),
    ("/playground", "Playground"),
)
"""Addresses and names, in the order of the bar."""


def moment(at: float | None, *, style: str = "time") -> Markup:
    """A `<time>`; dashboard.js tells it in the visitor's zone, or with `ago` as how long ago.

    The zone is told once, at the foot of the page: it is UTC without JavaScript.
    """
    if at is None:
        return Markup("–")
    utc = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}" data-style="{}">{}</time>').format(
        escape(utc.isoformat(timespec="seconds")), escape(style), f"{utc:%Y-%m-%d %H:%M:%S}"
    )


def ticking(seconds: float, *, each: int = 1) -> Markup:
    """A duration to which dashboard.js adds `each` every second, until it is told anew."""
    return Markup('<span data-seconds="{}" data-each="{}">{}</span>').format(
        escape(seconds), escape(each), duration_in_words(seconds)
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("batch_api.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": bytes_in_words,
        "count": count_in_words,
        "duration": duration_in_words,
        "exact_duration": exact_duration_in_words,
        "moment": moment,
        "plural": plural,
        "rate": rate_in_words,
        "ticking": ticking,
    }
    environment.globals |= {"navigation": NAVIGATION, "static": address}
    return environment


ENVIRONMENT = _environment()
