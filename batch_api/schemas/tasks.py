"""Texts that are answered later: what `/send_text` and its relatives take and give."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Text(BaseModel):
    """`dyn_batch` and `speculative_decoding` may be given, and change nothing."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    text: Annotated[str, Field(min_length=1)]
    model_name: str | None = None
    """None: the first that is served."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]


class Task(BaseModel):
    task_id: str


class Tasks(BaseModel):
    tasks: list[str]


class TaskStatus(BaseModel):
    status: Literal["processing", "finished", "failed"]
    result: str | None = None
    error: str | None = None


class Healthy(BaseModel):
    message: Literal["Model healthy"] = "Model healthy"
