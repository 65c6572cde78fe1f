"""curl against `batch-api serve`, as people type it: forms in any order, `-d` without a type."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, StandinProcess
from tests.standin import HANG, MODEL, answer_to

_CHAT = "/v1/chat/completions"
_POLL_SECONDS = 0.02
_SECONDS = "20"
_LINES_SECONDS = 60
README = Path(__file__).parents[1] / "README.md"


@dataclass(frozen=True, slots=True)
class Curl:
    """The real one, in a folder of its own."""

    base_url: str
    folder: Path

    def __call__(self, path: str, *arguments: str) -> Any:
        """The JSON of the answer, which has to be a good one."""
        return json.loads(self.raw(path, "--fail-with-body", *arguments).stdout)

    def raw(self, path: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = ["curl", "--silent", "--show-error", "--max-time", _SECONDS, *arguments]
        done = subprocess.run(
            [*command, self.base_url + path], capture_output=True, cwd=self.folder
        )
        assert done.returncode == 0, (done.stderr, done.stdout)
        return done

    def status_and_body(self, path: str, *arguments: str) -> tuple[int, Any]:
        body, _, status = self.raw(path, "-w", "\n%{http_code}", *arguments).stdout.rpartition(
            b"\n"
        )
        return int(status), json.loads(body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("curl")
    settings = {"max_batch_file_bytes": 4_000_000, "cancel_grace_seconds": 0}
    with (
        StandinProcess(folder) as standin,
        Server(folder, standin.url, settings=settings) as server,
    ):
        yield server


@pytest.fixture
def curl(server: Server, tmp_path: Path) -> Curl:
    return Curl(server.url, tmp_path)


def test_the_file_may_come_before_its_purpose_and_with_parts_that_nobody_knows(curl: Curl) -> None:
    content = _input(curl, "hi")

    file = curl(
        "/v1/files",
        "-F",
        "file=@in.jsonl",
        "-F",
        "custom_llm_provider=openai",
        "-F",
        "purpose=batch",
    )

    assert (file["filename"], file["bytes"], file["purpose"]) == ("in.jsonl", len(content), "batch")
    assert curl.raw(f"/v1/files/{file['id']}/content").stdout == content


def test_a_file_expires_when_its_form_says(curl: Curl) -> None:
    _input(curl, "hi")
    expiry = ("expires_after[anchor]=created_at", "expires_after[seconds]=86400")

    file = curl(
        "/v1/files",
        *("-F", "purpose=batch", "-F", "file=@in.jsonl", "-F", expiry[0], "-F", expiry[1]),
    )

    assert file["expires_at"] - file["created_at"] == 86_400


def test_permission_to_send_a_large_file_is_given_at_once(curl: Curl) -> None:
    content = _input(curl, *["x" * 1_000] * 3_000)
    asking = ("-H", "Expect: 100-continue", "--expect100-timeout", "60")  # longer than it may take

    done = curl.raw("/v1/files", "-v", *asking, "-F", "purpose=batch", "-F", "file=@in.jsonl")

    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert json.loads(done.stdout)["bytes"] == len(content)


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_a_file_that_is_too_large_is_refused_and_curl_reads_why(curl: Curl, expect: str) -> None:
    _input(curl, *["x" * 1_000] * 8_000)

    form = ("-F", "purpose=batch", "-F", "file=@in.jsonl")
    status, body = curl.status_and_body("/v1/files", "-H", expect, *form)

    assert (status, body["error"]["type"]) == (413, "invalid_request_error")


def test_json_without_its_content_type_makes_a_batch_whose_results_are_downloaded(
    curl: Curl,
) -> None:
    batch = _start(curl, "hello", "again")

    batch = _at_its_end(curl, batch)

    assert batch["status"] == "completed"
    curl.raw(f"/v1/files/{batch['output_file_id']}/content", "-o", "out.jsonl")
    lines = [json.loads(line) for line in (curl.folder / "out.jsonl").read_text().splitlines()]
    bodies = [line["response"]["body"] for line in lines]
    assert [body["choices"][0]["message"]["content"] for body in bodies] == ["olleh", "niaga"]


def test_a_chat_without_its_content_type_is_answered(curl: Curl) -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}

    answer = curl(_CHAT, "-d", json.dumps(chat))

    assert answer["choices"][0]["message"]["content"] == "olleh"


def test_a_batch_is_cancelled_by_a_post_without_a_body(curl: Curl) -> None:
    batch = _start(curl, *[f"{HANG}{n}" for n in range(3)])

    cancelled = curl(f"/v1/batches/{batch['id']}/cancel", "-X", "POST")

    assert cancelled["status"] == "cancelling"
    assert _at_its_end(curl, batch)["status"] == "cancelled"


def test_a_download_that_broke_off_goes_on_where_it_stopped(curl: Curl) -> None:
    content = _input(curl, *["x"] * 1_000)
    file = curl("/v1/files", "-F", "purpose=batch", "-F", "file=@in.jsonl")
    (curl.folder / "again.jsonl").write_bytes(content[:12_345])

    curl.raw(f"/v1/files/{file['id']}/content", "-C", "-", "-o", "again.jsonl")

    assert (curl.folder / "again.jsonl").read_bytes() == content


def test_a_file_is_deleted(curl: Curl) -> None:
    _input(curl, "hi")
    path = f"/v1/files/{curl('/v1/files', '-F', 'purpose=batch', '-F', 'file=@in.jsonl')['id']}"

    assert curl(path, "-X", "DELETE")["deleted"] is True

    status, body = curl.status_and_body(path)
    assert (status, body["error"]["param"]) == (404, "id")


def test_the_lines_in_the_readme_work_as_they_are_printed(curl: Curl) -> None:
    _, after = README.read_text().split("The same with `curl` and `jq`", 1)
    found = re.search(r"```sh\n(.*?)```", after, re.DOTALL)
    assert found is not None
    lines = found[1].replace("http://127.0.0.1:5000", curl.base_url).replace('"demo"', f'"{MODEL}"')

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        capture_output=True,
        cwd=curl.folder,
        timeout=_LINES_SECONDS,
        check=True,
    )

    (answer,) = (line for line in done.stdout.decode().splitlines() if "custom_id" in line)
    told = json.loads(answer)["response"]["body"]["choices"][0]["message"]["content"]
    assert told == answer_to("What is 2+2?")


def _input(curl: Curl, *texts: str) -> bytes:
    """`in.jsonl`, whose content is returned."""
    lines = [_line(f"line-{n}", text) for n, text in enumerate(texts)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (curl.folder / "in.jsonl").write_bytes(content)
    return content


def _line(custom_id: str, text: str) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": _CHAT, "body": body}


def _start(curl: Curl, *texts: str) -> Any:
    _input(curl, *texts)
    file = curl("/v1/files", "-F", "purpose=batch", "-F", "file=@in.jsonl")
    new = {"input_file_id": file["id"], "endpoint": _CHAT, "completion_window": "24h"}
    return curl("/v1/batches", "-d", json.dumps(new))


def _at_its_end(curl: Curl, batch: Any) -> Any:
    while batch["status"] not in ("completed", "failed", "cancelled", "expired"):
        time.sleep(_POLL_SECONDS)
        batch = curl(f"/v1/batches/{batch['id']}")
    return batch
