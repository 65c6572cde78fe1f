"""A batch for the stand-in, as a client sees it: sent once, waited for, its output checked."""

import json
from collections.abc import Sequence
from typing import Literal

from openai import OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from tests.server import Server
from tests.standin import MODEL, answer_to

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_POLL_SECONDS = 0.05


class Job:
    """Remembers what the server has acknowledged, and goes on from there."""

    def __init__(self, custom_ids: Sequence[str], *, in_parts: bool = False) -> None:
        self.custom_ids = list(custom_ids)
        self._in_parts = in_parts
        self._upload_id: str | None = None
        self._part_ids: list[str] = []
        self._file_id: str | None = None
        self._batch_id: str | None = None

    @property
    def batch_id(self) -> str:
        assert self._batch_id is not None, "no batch was acknowledged"
        return self._batch_id

    def create(self, client: OpenAI) -> None:
        """Upload the input and create the batch, unless that is done."""
        self.upload(client)
        assert self._file_id is not None
        if self._batch_id is None:
            self._batch_id = client.batches.create(
                input_file_id=self._file_id, endpoint=_ENDPOINT, completion_window="24h"
            ).id

    def upload(self, client: OpenAI) -> None:
        """Unless that is done."""
        if self._file_id is None:
            content = "".join(map(_input_line, self.custom_ids)).encode()
            if self._in_parts:
                self._file_id = self._upload_in_parts(client, content)
            else:
                file = client.files.create(file=("input.jsonl", content), purpose="batch")
                self._file_id = file.id

    def _upload_in_parts(self, client: OpenAI, content: bytes) -> str:
        """The id of the file. What was acknowledged is not sent again."""
        if self._upload_id is None:
            self._upload_id = client.uploads.create(
                bytes=len(content),
                filename="input.jsonl",
                mime_type="application/jsonl",
                purpose="batch",
            ).id
        middle = len(content) // 2
        for data in (content[:middle], content[middle:])[len(self._part_ids) :]:
            part = client.uploads.parts.create(self._upload_id, data=data)
            self._part_ids.append(part.id)
        upload = client.uploads.complete(self._upload_id, part_ids=self._part_ids)
        assert upload.file is not None
        return upload.file.id

    def complete(self, server: Server, client: OpenAI) -> None:
        """Wait until it is over; each line has its answer then, once and in order."""
        batch = client.batches.retrieve(self.batch_id)
        while not BatchStatus(batch.status).is_final:
            server.live(_POLL_SECONDS)
            batch = client.batches.retrieve(self.batch_id)
        self._check(client, batch)

    def _check(self, client: OpenAI, batch: Batch) -> None:
        assert batch.status == "completed"
        counts = batch.request_counts
        assert counts is not None
        assert counts.completed == counts.total == len(self.custom_ids)
        assert batch.error_file_id is None
        assert batch.output_file_id is not None
        self._check_output(client.files.content(batch.output_file_id).text)

    def _check_output(self, output: str) -> None:
        lines = [json.loads(line) for line in output.split("\n")[:-1]]
        assert [line["custom_id"] for line in lines] == self.custom_ids
        assert len({line["id"] for line in lines}) == len(lines)
        for line in lines:
            (choice,) = line["response"]["body"]["choices"]
            assert choice["message"]["content"] == answer_to(line["custom_id"])


def _input_line(custom_id: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": custom_id}]}
    line = {"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": body}
    return json.dumps(line) + "\n"
