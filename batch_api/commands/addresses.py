"""How clients reach a socket that listens."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Set aside for documentation: nobody has them."""


def urls_of(listener: socket.socket) -> list[str]:
    """One to open on this machine first; then one for others, where it listens on all addresses."""
    host, port = listener.getsockname()[:2]
    address = ip_address(host)
    hosts = _hosts(listener.family) if address.is_unspecified else [address]
    return [f"http://{_in_url(each)}:{port}" for each in hosts]


def _hosts(family: int) -> list[IPv4Address | IPv6Address]:
    here = ip_address(_LOOPBACK[socket.AddressFamily(family)])
    own = _own(family)
    return [here] if own is None or own.is_loopback else [here, own]


def _own(family: int) -> IPv4Address | IPv6Address | None:
    """With which this machine goes out, if it can; nothing is sent for that."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_SOMEWHERE[socket.AddressFamily(family)], 9))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])


def _in_url(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
