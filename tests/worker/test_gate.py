"""A worker lets in who calls it by a name of its own, as the server does."""

import urllib.error
import urllib.request

import pytest
from openai import OpenAI

pytestmark = pytest.mark.slow  # a real worker


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "workers:8001"}, 200),
        ({"host": "evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
    ],
    ids=str,
)
def test_strangers_are_turned_away(
    real_client: OpenAI, headers: dict[str, str], status: int
) -> None:
    request = urllib.request.Request(f"{real_client.base_url}models", headers=headers)

    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = answer.status
    except urllib.error.HTTPError as refused:
        with refused:
            found = refused.code

    assert found == status
