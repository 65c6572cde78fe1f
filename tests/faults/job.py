"""A batch for the stand-in, as a client sees it: sent once, waited for, its files checked."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from openai import OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from tests.server import Server
from tests.standin import MODEL, NO_FAULT, Fault, answer_to

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_POLL_SECONDS = 0.05
_NEVER_RUN = {"batch_cancelled", "batch_expired"}


class Job:
    """Remembers what the server has acknowledged, and goes on from there.

    What was not acknowledged is sent again under the same key, so that nothing is created twice.
    """

    def __init__(
        self,
        custom_ids: Sequence[str],
        *,
        in_parts: bool = False,
        faults: Mapping[str, Fault] | None = None,
    ) -> None:
        """`faults`: of the stand-in, by custom_id."""
        self.custom_ids = list(custom_ids)
        self._faults = faults or {}
        self._in_parts = in_parts
        self._key = uuid4().hex
        self._upload_id: str | None = None
        self._part_ids: list[str] = []
        self._file_id: str | None = None
        self._batch_id: str | None = None

    @property
    def batch_id(self) -> str:
        assert self._batch_id is not None, "no batch was acknowledged"
        return self._batch_id

    @property
    def file_id(self) -> str:
        assert self._file_id is not None, "no file was acknowledged"
        return self._file_id

    def create(self, client: OpenAI) -> None:
        """Upload the input and create the batch, unless that is done."""
        self.upload(client)
        if self._batch_id is None:
            self._batch_id = client.batches.create(
                input_file_id=self.file_id,
                endpoint=_ENDPOINT,
                completion_window="24h",
                extra_headers=self._once(),
            ).id

    def upload(self, client: OpenAI) -> None:
        """Unless that is done."""
        if self._file_id is None:
            content = "".join(map(self._input_line, self.custom_ids)).encode()
            if self._in_parts:
                self._file_id = self._upload_in_parts(client, content)
            else:
                file = client.files.create(
                    file=("input.jsonl", content), purpose="batch", extra_headers=self._once()
                )
                self._file_id = file.id

    def _upload_in_parts(self, client: OpenAI, content: bytes) -> str:
        """The id of the file. What was acknowledged is not sent again."""
        if self._upload_id is None:
            self._upload_id = client.uploads.create(
                bytes=len(content),
                filename="input.jsonl",
                mime_type="application/jsonl",
                purpose="batch",
                extra_headers=self._once(),
            ).id
        middle = len(content) // 2
        for data in (content[:middle], content[middle:])[len(self._part_ids) :]:
            once = self._once(len(self._part_ids))
            part = client.uploads.parts.create(self._upload_id, data=data, extra_headers=once)
            self._part_ids.append(part.id)
        upload = client.uploads.complete(self._upload_id, part_ids=self._part_ids)
        assert upload.file is not None
        return upload.file.id

    def _once(self, number: int = 0) -> dict[str, str]:
        return {"Idempotency-Key": f"{self._key}-{number}"}

    def complete(self, server: Server, client: OpenAI) -> Batch:
        """Wait until it is over; each line has its answer then, once and in order."""
        batch = self.end(server, client)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.completed == len(self.custom_ids)
        return batch

    def end(self, server: Server, client: OpenAI) -> Batch:
        """Wait until it is over, however it ends; each line is accounted for then."""
        batch = client.batches.retrieve(self.batch_id)
        while not BatchStatus(batch.status).is_final:
            server.live(_POLL_SECONDS)
            batch = client.batches.retrieve(self.batch_id)
        self.check(client, batch)
        return batch

    def check(self, client: OpenAI, batch: Batch) -> None:
        """Each line of a batch that is over stands once, in one of its files, and is counted."""
        counts = batch.request_counts
        assert counts is not None
        output, errors = _lines(client, batch.output_file_id), _lines(client, batch.error_file_id)
        unrun = sum(_is_never_run(line) for line in errors)
        assert (counts.completed, counts.failed) == (len(output), len(errors) - unrun)
        assert counts.completed + counts.failed + unrun == counts.total == len(self.custom_ids)
        assert unrun == 0 or batch.status in ("cancelled", "expired")
        ids = [[line["custom_id"] for line in lines] for lines in (output, errors)]
        for found in ids:
            assert found == [id for id in self.custom_ids if id in set(found)]
        assert Counter(ids[0] + ids[1]) == Counter(self.custom_ids)
        assert len({line["id"] for line in output + errors}) == len(self.custom_ids)
        for line in output:
            (choice,) = line["response"]["body"]["choices"]
            assert choice["message"]["content"] == answer_to(line["custom_id"])

    def _input_line(self, custom_id: str) -> str:
        fault = self._faults.get(custom_id, NO_FAULT)
        content = custom_id if fault is NO_FAULT else f"{fault}{custom_id}"
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
        line = {"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": body}
        return json.dumps(line) + "\n"


def _lines(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    file, content = client.files.retrieve(file_id), client.files.content(file_id).content
    assert file.bytes == len(content) > 0
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def _is_never_run(line: dict[str, Any]) -> bool:
    return line["error"] is not None and line["error"]["code"] in _NEVER_RUN
