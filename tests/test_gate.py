"""Who is let in, by what a request says of whom it is for and where it comes from."""

import pytest
from starlette.datastructures import Headers

from batch_api.errors import APIError
from batch_api.gate import HostNotServed, OriginNotAllowed, Visitors, is_loopback

LOCAL = Visitors(is_local=True)
PUBLIC = Visitors(is_local=False)
NAMED = Visitors(hosts=("batch.example.com",))
PAGE = "https://app.example.com"


def refusal(visitors: Visitors, **headers: str) -> type[APIError] | None:
    try:
        visitors.check(Headers(headers))
    except APIError as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:5000", "localhost.", "127.0.0.1:1", "127.8.8.8", "[::1]", "[::1]:9"],
)
def test_a_local_server_answers_to_the_names_of_its_machine(host: str) -> None:
    assert refusal(LOCAL, host=host) is None
    assert refusal(NAMED, host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:5000",
        "127.0.0.1@evil.example",
        "192.168.0.1",
        "[::2]",
        "[::1",
        "",
    ],
)
def test_a_local_server_answers_to_no_other_name(host: str) -> None:
    assert refusal(LOCAL, host=host) is HostNotServed
    assert refusal(NAMED, host=host) is HostNotServed


def test_no_host_or_two_of_them_are_none_that_is_served() -> None:
    two = Headers(raw=[(b"host", b"localhost"), (b"host", b"localhost")])

    assert refusal(LOCAL) is HostNotServed
    with pytest.raises(HostNotServed):
        LOCAL.check(two)


def test_an_operator_may_name_more_hosts_or_allow_any() -> None:
    assert refusal(NAMED, host="batch.example.com:443") is None
    assert refusal(NAMED.at(is_local=True), host="Batch.Example.com") is None
    assert refusal(Visitors(hosts=("*",), is_local=True), host="evil.example") is None


def test_a_server_for_other_machines_answers_to_any_name_unless_some_are_set() -> None:
    assert refusal(PUBLIC, host="whatever.example") is None
    assert refusal(NAMED, host="whatever.example") is HostNotServed


@pytest.mark.parametrize("visitors", [LOCAL, PUBLIC])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost:3000", "http://localhost"]
)
def test_pages_of_others_are_not_let_in(visitors: Visitors, origin: str) -> None:
    assert refusal(visitors, host="localhost:5000", origin=origin) is OriginNotAllowed


def test_pages_of_the_server_itself_and_of_allowed_origins_are_let_in() -> None:
    allowing = Visitors(origins=(PAGE,))

    assert refusal(LOCAL, host="localhost:5000", origin="http://localhost:5000") is None
    assert refusal(PUBLIC, host="gpu-box", origin="https://gpu-box") is None
    assert refusal(allowing, host="gpu-box", origin=PAGE) is None
    assert refusal(allowing, host="gpu-box", origin=f"{PAGE}.evil.example") is OriginNotAllowed
    assert refusal(Visitors(origins=("*",)), host="gpu-box", origin="null") is None


@pytest.mark.parametrize(
    ("host", "is_so"),
    [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_a_server_is_local_if_only_its_machine_reaches_it(host: str, is_so: bool) -> None:
    assert is_loopback(host) is is_so
