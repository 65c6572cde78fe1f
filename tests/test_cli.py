"""Bad settings are one sentence and exit code 2, before anything serves."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from batch_api.commands.serve import WebhooksUnsigned, check_webhooks
from batch_api.settings import Settings
from tests.server import Server

pytestmark = pytest.mark.slow

_SECONDS = 60


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    refused = _serve(tmp_path, BATCH_API_PROT="5000")

    assert refused == "batch-api: There is no setting BATCH_API_PROT.\n"


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    refused = _serve(tmp_path, BATCH_API_MAX_IN_FLIGHT="many")

    assert refused == "batch-api: BATCH_API_MAX_IN_FLIGHT must be a whole number, not 'many'.\n"


def test_an_upstream_must_be_a_url(tmp_path: Path) -> None:
    refused = _serve(tmp_path, "--upstream", "localhost:8000")

    assert refused == (
        "batch-api: --upstream must be a URL such as http://127.0.0.1:8000/v1, "
        "not 'localhost:8000'.\n"
    )


def test_an_unknown_log_level_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}")
    run = ["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]

    for command in (["serve"], run, ["worker"]):
        refused = _refusal(*command, "--log-level", "foo")
        assert refused.startswith("batch-api: ")
        assert refused.count("\n") == 1


def test_an_unknown_task_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert "task" in _serve(tmp_path, "--task", "sing")

    refused = _refusal("worker", "--task", "sing")
    assert refused == "batch-api: --task must be 'generate' or 'embed', not 'sing'.\n"


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        refused = _serve(tmp_path, "--port", str(port))

    assert refused == f"batch-api: Can't listen on 127.0.0.1:{port}: Address already in use.\n"


def test_a_server_for_other_machines_without_any_key_is_refused(tmp_path: Path) -> None:
    refused = _serve(tmp_path, "--host", "0.0.0.0", "--upstream", "http://127.0.0.1:9")

    assert refused == (
        "batch-api: Without a key, a server on 0.0.0.0 would let in whoever reaches it: make one "
        "with `batch-api keys create NAME`, or say --allow-anyone.\n"
    )
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")

    assert _serve(tmp_path).startswith("batch-api: The data folder")


def test_a_data_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    refused = _refusal("serve", "--port", "0", "--data-dir", "/proc/nowhere/data")

    assert refused.startswith("batch-api: The data folder /proc/nowhere/data")
    assert refused.count("\n") == 1


def test_a_second_server_on_a_data_folder_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        refused = _serve(tmp_path)

        assert refused.startswith("batch-api: The data folder")
        assert f"is in use by another batch-api (process {server.pid})" in refused


def test_a_database_from_a_newer_version_is_refused(tmp_path: Path, migrated: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(migrated, tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / migrated.name)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    refused = _serve(tmp_path)

    assert "was written by a newer batch-api (its schema is 9999); install that" in refused
    assert refused.count("\n") == 1


def test_a_model_folder_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    refused = _serve(tmp_path, "--model", "./nowhere")

    assert refused == "batch-api: There is no folder ./nowhere.\n"


def test_a_model_that_is_nowhere_is_refused_in_one_sentence(tmp_path: Path) -> None:
    refused = _serve(
        tmp_path, "--model", "no/such-model", HF_ENDPOINT="http://user:secret@127.0.0.1:9"
    )

    assert refused == (
        "batch-api: There is no folder no/such-model, and http://127.0.0.1:9 can't be asked for a "
        "model of that name: connection refused. Name a folder with a model, or see to the "
        "network.\n"
    )


class _HubWithoutIt(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("x-error-code", "RepoNotFound")
        self.end_headers()

    def do_GET(self) -> None:
        """Of what its library asks for besides."""
        self.do_HEAD()


def test_a_model_that_the_hub_does_not_have_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _HubWithoutIt) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{hub.server_port}"
        refused = _serve(tmp_path, "--model", "no/such-model", HF_ENDPOINT=url)
        hub.shutdown()
        thread.join()

    assert f"no folder no/such-model, and {url} has no model of that name" in refused
    assert refused.count("\n") == 1


def test_a_name_that_no_model_has_is_refused_in_one_sentence(tmp_path: Path) -> None:
    refused = _serve(tmp_path, "--model", "my model")

    assert refused == "batch-api: 'my model' is neither a folder nor a model's name.\n"


def test_a_model_that_can_not_be_loaded_ends_the_server(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")

    refused = _serve(tmp_path, "--model", str(model))

    sentences = [line for line in refused.split("\n") if line.startswith("batch-api: ")]
    assert str(model) in sentences[0]
    assert sentences[-1] == f"batch-api: The worker for {model} can't run."
    assert "Traceback" not in refused


def test_webhooks_that_nobody_signs_are_refused(tmp_path: Path) -> None:
    refused = _serve(tmp_path, BATCH_API_WEBHOOK_URLS='["http://hooks.example.com"]')

    assert refused == (
        "batch-api: Webhooks are signed: set BATCH_API_WEBHOOK_SECRET to what `batch-api webhooks "
        "secret` prints, or unset BATCH_API_WEBHOOK_URLS and BATCH_API_WEBHOOK_HOSTS.\n"
    )
    assert not (tmp_path / "data").exists()


def test_hosts_for_webhooks_that_nobody_signs_are_refused_too() -> None:
    with pytest.raises(WebhooksUnsigned):
        check_webhooks(Settings(webhook_hosts=("hooks.example.com",)))


def test_a_secret_for_webhooks_that_is_none_is_refused_and_not_told(tmp_path: Path) -> None:
    refused = _serve(tmp_path, BATCH_API_WEBHOOK_SECRET="whsec_xyzzy")

    assert refused == (
        "batch-api: BATCH_API_WEBHOOK_SECRET must be one that `batch-api webhooks secret` prints, "
        "or several with spaces between them.\n"
    )


GOOD_SECRET = "whsec_YW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5IGVsc2UgYXQgYWxs"


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_eHl6enk=",
        "eHl6enk=" * 4,
        f"whsec_{'x' * 400}",
        f"{GOOD_SECRET} whsec_eHl6enk=",
        f"{GOOD_SECRET},{GOOD_SECRET}",
    ],
)
def test_a_secret_for_webhooks_is_of_24_to_64_bytes(secret: str) -> None:
    with pytest.raises(ValidationError, match="webhooks secret"):
        Settings(webhook_secret=SecretStr(secret))


@pytest.mark.parametrize("host", ["*", "https://a.example.com", "a.example.com/hook", "u@a", ""])
def test_a_host_for_webhooks_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="webhook_hosts"):
        Settings(webhook_hosts=(host,))


def test_a_fresh_secret_for_webhooks_is_one_that_the_settings_take() -> None:
    one, other = (SecretStr(_said("webhooks", "secret").strip()) for _ in range(2))

    assert one != other
    assert Settings(webhook_secret=one).webhook_secret == one
    both = SecretStr(f"{one.get_secret_value()} {other.get_secret_value()}")
    assert Settings(webhook_secret=both).webhook_secret == both


def test_hosts_for_webhooks_are_known_however_they_are_written() -> None:
    told = Settings(webhook_hosts=("Example.com:8443", "[::1]:9000"))

    assert told.webhook_hosts == ("example.com:8443", "[::1]:9000")


@pytest.mark.parametrize("secret", ["", " "])
def test_an_empty_secret_for_webhooks_is_none(secret: str) -> None:
    assert Settings(webhook_secret=SecretStr(secret)).webhook_secret is None


def _said(*arguments: str) -> str:
    """What a command prints that goes well."""
    ended = subprocess.run(
        [sys.executable, "-m", "batch_api", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    return ended.stdout


def _serve(folder: Path, *options: str, **environment: str) -> str:
    """What `batch-api serve` says on standard error when it refuses to run."""
    return _refusal(
        *("serve", "--port", "0", "--data-dir", str(folder / "data"), *options), **environment
    )


def _refusal(*arguments: str, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "batch_api", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    return ended.stderr
