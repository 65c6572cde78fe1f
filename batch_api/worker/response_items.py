"""The output of one response: its items as they grow, and the events that tell of it."""

from collections.abc import Iterator
from typing import Any

from batch_api.schemas.chat_completion import TokenInfo
from batch_api.worker.choice import Call, CallPart, Part
from batch_api.worker.identity import new_id

Event = dict[str, Any]
"""With a type; its number is for who sends it."""


class ResponseItems:
    """Text and calls come one after the other: the last item is open until the next begins."""

    def __init__(self) -> None:
        self.output: list[dict[str, Any]] = []
        self._text: dict[str, Any] | None = None  # the open message's only part
        self._call: Call | None = None  # the open one

    def add(self, part: Part, logprobs: list[TokenInfo]) -> Iterator[Event]:
        if isinstance(part, CallPart):
            yield from self._add_call(part)
        else:
            yield from self._add_text(part, logprobs)

    def close(self, status: str) -> Iterator[Event]:
        """End the open item, if there is one."""
        if self._text is not None:
            yield self._event("response.output_text.done", **self._text_facts, **_said(self._text))
            yield self._event("response.content_part.done", **self._text_facts, part=self._text)
        elif self._call is not None:
            self._item["arguments"] = self._call.arguments
            done = {"name": self._call.name, "arguments": self._call.arguments}
            yield self._event("response.function_call_arguments.done", **self._facts, **done)
        else:
            return
        self._item["status"] = status
        self._text = self._call = None
        yield self._event("response.output_item.done", item=self._item)

    def _add_text(self, text: str, logprobs: list[TokenInfo]) -> Iterator[Event]:
        if self._text is None:
            yield from self.close("completed")
            yield from self._open_text()
        assert self._text is not None
        self._text["text"] += text
        self._text["logprobs"] += logprobs
        said = {"delta": text, "logprobs": logprobs}
        yield self._event("response.output_text.delta", **self._text_facts, **said)

    def _open_text(self) -> Iterator[Event]:
        yield self._open(
            {
                "type": "message",
                "id": new_id("msg_"),
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
        )
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", **self._text_facts, part=empty)
        self._text = empty | {"annotations": [], "logprobs": []}
        self._item["content"] = [self._text]

    def _add_call(self, part: CallPart) -> Iterator[Event]:
        if part.begun is None:
            delta = {"delta": part.arguments}
            yield self._event("response.function_call_arguments.delta", **self._facts, **delta)
            return
        yield from self.close("completed")
        self._call = part.begun
        yield self._open(
            {
                "type": "function_call",
                "id": new_id("fc_"),
                "call_id": part.begun.id,
                "name": part.begun.name,
                "arguments": "",
                "status": "in_progress",
            }
        )

    def _open(self, item: dict[str, Any]) -> Event:
        self.output.append(item)
        return self._event("response.output_item.added", item=dict(item))

    def _event(self, type: str, **facts: Any) -> Event:
        return {"type": type, "output_index": len(self.output) - 1, **facts}

    @property
    def _item(self) -> dict[str, Any]:
        return self.output[-1]

    @property
    def _facts(self) -> dict[str, Any]:
        return {"item_id": self._item["id"]}

    @property
    def _text_facts(self) -> dict[str, Any]:
        return self._facts | {"content_index": 0}


def _said(text: dict[str, Any]) -> dict[str, Any]:
    return {"text": text["text"], "logprobs": text["logprobs"]}
