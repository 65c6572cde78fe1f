"""A bad setting is told by the name under which it was given, with what it must be."""

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from batch_api.commands.bad_settings import sentence
from batch_api.settings import Settings


def refusal(**options: Any) -> str:
    try:
        Settings(**options)
    except (ValidationError, SettingsError) as error:
        return sentence(error, options)
    pytest.fail("they are taken")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "many", "a whole number, not 'many'"),
        ("PORT", "70000", "at most 65535, not '70000'"),
        ("MAX_IN_FLIGHT", "0", "at least 1, not '0'"),
        ("LEASE_SECONDS", "0", "more than 0, not '0'"),
        ("LEASE_SECONDS", "a minute", "a number, not 'a minute'"),
        ("ALLOW_ANYONE", "perhaps", "true or false, not 'perhaps'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error', not 'loud'"),
        ("UPSTREAM", "http://a", """a JSON list such as ["a", "b"], not 'http://a'"""),
        ("UPSTREAM", '"http://a"', """a JSON list such as ["a", "b"], not 'http://a'"""),
        ("UPSTREAM", '["a"]', "a URL such as http://127.0.0.1:8000/v1, not 'a'"),
        ("ALLOWED_HOSTS", '["x.org:1"]', "a host's name without a port, or *, not 'x.org:1'"),
        ("ALLOWED_MEDIA_HOSTS", '["a/b"]', "a host's name without a port, or *, not 'a/b'"),
        (
            "ALLOWED_ORIGINS",
            '["a.com"]',
            "an origin such as https://app.example.com, or *, not 'a.com'",
        ),
        ("COMPLETION_WINDOWS", '["1w"]', "hours or days such as 24h or 7d, not '1w'"),
        ("COMPLETION_WINDOWS", "[]", "hours or days such as 24h or 7d, not []"),
        ("API_KEY", "sk-short", "at least 16 characters long"),
        (
            "WEBHOOK_SECRET",
            "whsec_short",
            "one that `batch-api webhooks secret` prints, or several with spaces between them",
        ),
    ],
)
def test_one_of_the_environment_is_called_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"BATCH_API_{name}", value)

    assert refusal() == f"BATCH_API_{name} must be {told}."


def test_an_option_is_called_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_API_MAX_LENGTH", "100")

    assert refusal(max_length=3) == "--max-length must be at least 16, not 3."


def test_what_a_command_took_from_the_environment_is_called_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_API_LOG_LEVEL", "loud")

    assert refusal(log_level="loud").startswith("BATCH_API_LOG_LEVEL must be ")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_no_setting_is_refused_in_the_words_of_a_library(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for value in ("", "?", "-1", '["?:/ "]', "x" * 5):
        monkeypatch.setenv(f"BATCH_API_{name.upper()}", value)
        try:
            Settings()
        except (ValidationError, SettingsError) as error:
            told = sentence(error, {})
            assert told.startswith(f"BATCH_API_{name.upper()} must be ")
            assert "should" not in told
            assert "otherwise" not in told
