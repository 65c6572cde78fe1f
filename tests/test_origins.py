import pytest

from batch_api.origins import leads_to, origin


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://example.com/hook", ["example.com"]),
        ("http://example.com", ["example.com"]),
        ("https://EXAMPLE.com:443/hook?a=b", ["example.com"]),
        ("https://example.com/", ["example.com:443"]),
        ("http://example.com:8080/", ["other.com", "example.com:8080"]),
        ("http://[::1]/", ["[::1]"]),
        ("http://[::1]:9000/", ["[::1]:9000"]),
    ],
)
def test_a_url_leads_to_the_host_and_port_that_it_names(url: str, hosts: list[str]) -> None:
    assert leads_to(url, hosts)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://example.com/", []),
        ("https://example.com:8443/", ["example.com"]),
        ("http://example.com:443/", ["example.com"]),
        ("http://example.com/", ["example.com:443"]),
        ("https://sub.example.com/", ["example.com"]),
        ("https://example.com.evil.org/", ["example.com"]),
        ("https://example.com./", ["example.com"]),
        ("https://evil.org/example.com", ["example.com"]),
        ("https://evil.org?example.com", ["example.com"]),
        ("http://2130706433/", ["127.0.0.1"]),
        ("http://[::1]:9000/", ["[::1]"]),
        ("http://[::ffff:127.0.0.1]/", ["127.0.0.1"]),
    ],
)
def test_a_url_leads_to_no_other(url: str, hosts: list[str]) -> None:
    assert not leads_to(url, hosts)


def test_an_origin_has_neither_path_nor_query() -> None:
    assert origin("https://Example.com:8443/T0KEN?token=1") == "https://example.com:8443"
