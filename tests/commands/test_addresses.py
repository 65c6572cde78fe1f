"""What a server prints can be opened."""

import socket
from urllib.parse import urlsplit

import psutil
import pytest

from batch_api.commands.addresses import urls_of
from batch_api.commands.listening import bind


@pytest.mark.parametrize(
    ("host", "first"),
    [
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("localhost", "http://127.0.0.1"),
        ("0.0.0.0", "http://127.0.0.1"),
        ("", "http://127.0.0.1"),
        ("::1", "http://[::1]"),
        ("::", "http://[::1]"),
    ],
)
def test_each_address_can_be_opened_that_of_this_machine_first(host: str, first: str) -> None:
    with bind(host, 0) as listener:
        urls = urls_of(listener)

        assert urls[0] == f"{first}:{listener.getsockname()[1]}"
        for url in urls:
            parts = urlsplit(url)
            with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10):
                pass


def test_who_listens_on_all_addresses_tells_the_one_that_others_reach() -> None:
    with bind("0.0.0.0", 0) as everywhere, bind("127.0.0.1", 0) as here:
        assert len(urls_of(here)) == 1
        _, *others = urls_of(everywhere)

    assert len(others) == (1 if has_network() else 0)
    assert not {urlsplit(url).hostname for url in others} & {"0.0.0.0", "127.0.0.1"}


def has_network() -> bool:
    addresses = [a for those in psutil.net_if_addrs().values() for a in those]
    return any(a.family == socket.AF_INET and a.address != "127.0.0.1" for a in addresses)
