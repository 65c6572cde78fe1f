"""Where a URL leads, without its path and query. Pure: nothing is looked up."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

_USUAL_PORTS = {"http": 80, "https": 443}
_HAS_PORT = re.compile(r":[0-9]+$")


def origin(url: str) -> str:
    """Such as `https://example.com:8443`; what may be logged, as the rest is often a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def leads_to(url: str, hosts: Collection[str]) -> bool:
    """Whether to one of `hosts`: `name`, for the usual port of the URL's scheme, or `name:port`."""
    scheme, _, address = origin(url).partition("://")
    usual = _USUAL_PORTS[scheme]
    return _with_port(address, usual) in {_with_port(host, usual) for host in hosts}


def _with_port(address: str, usual: int) -> str:
    return address if _HAS_PORT.search(address) else f"{address}:{usual}"
