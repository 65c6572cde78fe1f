"""`/send_text` and its tasks: batches of one line, so that a crash loses none. And `/generate`.

A task is a batch like any other: its id works at `/v1/batches` too.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends

from batch_api.api.batch_object import find_batch
from batch_api.api.deps import AllParts, Parts, TheClient, json_body
from batch_api.api.dialects.asking import CHAT, Asker, first_model, read_completion
from batch_api.api.documents import errors, takes
from batch_api.api.missing import no_such_batch
from batch_api.api.recording import record
from batch_api.api.results import finished_lines
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.error_lines import read_error_line
from batch_api.schemas.ids import batch_id, file_id
from batch_api.schemas.tasks import Healthy, Task, Tasks, TaskStatus, Text
from batch_api.settings import window_seconds
from batch_api.store import batches, files
from batch_api.store.blobs import Written
from batch_api.store.tables import FileRow

router = APIRouter(tags=["dialects"])

_LABEL = {"dialect": "task"}
_WINDOW = "24h"
_LISTED = 1000


TextBody = Annotated[Text, Depends(json_body(Text))]


@router.post(
    "/send_text",
    operation_id="sendText",
    openapi_extra=takes(Text),
    responses=errors(413, 429, 507, body=True),
)
async def send_text(text: TextBody, parts: Parts) -> Task:
    """Answered later: `/get_task_status` tells."""
    model = text.model_name or await first_model(parts)
    line = _line({"model": model, "messages": text.messages})
    input_id, task_id = file_id(), batch_id()
    async with parts.blobs.receiving(input_id) as writer:
        await writer.write(line)
        written = await parts.blobs.publish(input_id, writer)
    await record(parts.blobs, input_id, _begin(parts, input_id, task_id, written))
    parts.ring()
    return Task(task_id=task_id)


@router.post(
    "/generate",
    operation_id="generateNow",
    openapi_extra=takes(Text),
    responses=errors(404, 429, 502, body=True),
)
async def generate(text: TextBody, parts: Parts, client: TheClient) -> TaskStatus:
    """Answered at once, ahead of all tasks."""
    asker = await Asker.ready(parts, text.model_name)
    completion = await client.wait_for(asker.ask(text.messages, model=text.model_name))
    return TaskStatus(status="finished", result=completion.text)


@router.get("/get_task_status/{id}", operation_id="getTaskStatus", responses=errors(404))
async def task_status(id: str, parts: Parts) -> TaskStatus:
    async with parts.database.read() as session:
        batch = await find_batch(session, id)
    if batch.labels != _LABEL or (batch.total or 1) > 1:
        raise no_such_batch(id)
    if not batch.is_over:
        return TaskStatus(status="processing")
    if batch.errors:
        return TaskStatus(status="failed", error=batch.errors[0]["message"])
    line = b"".join([chunk async for chunk in finished_lines(id, parts)])
    if batch.completed:
        return _answered(line)
    return TaskStatus(status="failed", error=str(read_error_line(line).reason))


@router.get("/tasks/", operation_id="listTasks", responses=errors())
async def tasks(parts: Parts) -> Tasks:
    """The newest first."""
    async with parts.database.read() as session:
        return Tasks(tasks=list(await batches.labelled(session, _LABEL, limit=_LISTED)))


@router.get("/health_check", operation_id="checkHealth", responses=errors(404, 429, 502))
async def health_check(parts: Parts, client: TheClient) -> Healthy:
    """Has a model answer something."""
    asker = await Asker.ready(parts)
    hello = [{"role": "user", "content": "hello"}]
    await client.wait_for(asker.ask(hello, options={"max_tokens": 1}))
    return Healthy()


def _answered(line: bytes) -> TaskStatus:
    try:
        answer = msgspec.json.decode(line, type=_Line).response.body
        return TaskStatus(status="finished", result=read_completion(answer).text)
    except BAD_JSON:
        return TaskStatus(status="failed", error="There is no text in the answer.")


class _Response(msgspec.Struct):
    body: msgspec.Raw


class _Line(msgspec.Struct):
    response: _Response


def _line(body: dict[str, Any]) -> bytes:
    line = {"custom_id": "task", "method": "POST", "url": CHAT, "body": body}
    return msgspec.json.encode(line) + b"\n"


async def _begin(parts: AllParts, input_id: str, task_id: str, written: Written) -> FileRow:
    """File and batch in one transaction."""
    now = int(parts.clock.now())
    async with parts.database.write.begin() as session:
        await parts.quotas.check_stored(session, written.bytes)
        await parts.quotas.check_batches(session)
        batches.add(
            session,
            id=task_id,
            endpoint=CHAT,
            completion_window=_WINDOW,
            input_file_id=input_id,
            input_bytes=written.bytes,
            output_file_id=file_id(),
            error_file_id=file_id(),
            created_at=now,
            expires_at=now + window_seconds(_WINDOW),
            metadata=_LABEL,
        )
        return files.add(
            session,
            id=input_id,
            filename=f"{task_id}.jsonl",
            purpose="batch",
            bytes=written.bytes,
            sha256=written.sha256,
            created_at=now,
            expires_at=None,
        )
