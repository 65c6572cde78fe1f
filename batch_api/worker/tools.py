"""Which functions an answer may call, must call, and in which syntax."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_api.engine.errors import GrammarRefused
from batch_api.engine.sequence import Grammar
from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.tools import Function, ToolChoiceObject
from batch_api.worker.tool_syntax.families import Hermes, syntax_of
from batch_api.worker.tool_syntax.pieces import Parser, Syntax

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from batch_api.engine.grammar import GrammarCompiler

_AUTO = ToolChoiceObject.model_validate({"type": "auto"})
_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    functions: tuple[Function, ...]
    must_call: bool
    at_most_one: bool
    syntax: Syntax
    by_template: bool  # whether the model's own chat template tells it of the functions

    def parser(self) -> Parser:
        return self.syntax.parser(frozenset(function.name for function in self.functions))

    def grammar(self, grammars: "GrammarCompiler", *, otherwise: str | None = None) -> Grammar:
        """What an answer matches that must call, or must match a schema (`otherwise`).

        Takes a while: not for the event loop. Raises BadRequest.
        """
        from batch_api.engine.grammar import Tag

        frame = self.syntax.frame
        try:
            return grammars.calls(
                tuple(Tag(*self._parts(function)) for function in self.functions),
                least=1,
                most=1 if self.at_most_one else None,
                separator=frame.separator,
                begin=frame.begin,
                end=frame.end,
                otherwise=otherwise,
            )
        except GrammarRefused as error:
            message = f"The parameters of these functions can't be held to: {error}"
            code = "invalid_function_parameters"
            raise BadRequest(message, param="tools", code=code) from error

    def shown_tokens(self, tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
        """The special tokens by which this model marks its calls."""
        special = set(tokenizer.all_special_ids)
        marks = (tokenizer.convert_tokens_to_ids(marker) for marker in self.syntax.markers)
        return frozenset(mark for mark in marks if mark in special)

    def _parts(self, function: Function) -> tuple[str, str, str]:
        begin, end = self.syntax.around(function.name)
        return begin, json.dumps(_OBJECT | (function.parameters or {})), end


def toolbox(chat: ChatRequest, tokenizer: "PreTrainedTokenizerBase") -> Toolbox | None:
    """None if nothing may be called. Raises BadRequest."""
    offered = _offered(chat)
    choice = chat.choice_of_tool or _AUTO
    if choice.type == "none" or (choice.type == "auto" and not offered):
        return None
    param = "tool_choice" if chat.tool_choice is not None else "function_call"
    if not offered:
        message = f"'{param}' is only allowed when there are tools."
        raise BadRequest(message, param=param, code="invalid_value")
    functions = _chosen(choice, offered, param)
    syntax = syntax_of(template_of(tokenizer))
    return Toolbox(
        functions=functions,
        must_call=_must_call(choice),
        at_most_one=choice.type == "function" or chat.is_legacy or not chat.parallel_tool_calls,
        syntax=syntax or Hermes(),
        by_template=syntax is not None,
    )


def template_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A model may have a template for chats with tools beside the one without; or none at all."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return template.get("tool_use") or template.get("default") or ""
    return template or ""


def _offered(chat: ChatRequest) -> dict[str, Function]:
    offered = {function.name: function for function in chat.offered_functions}
    if len(offered) < len(chat.offered_functions):
        raise BadRequest("Two tools have the same name.", param="tools", code="invalid_value")
    return offered


def _chosen(
    choice: ToolChoiceObject, offered: dict[str, Function], param: str
) -> tuple[Function, ...]:
    names = _names(choice)
    if unknown := [name for name in names if name not in offered]:
        message = f"'{param}' names the function '{unknown[0][:64]}', which is not among the tools."
        raise BadRequest(message, param=param, code="invalid_value")
    return tuple(offered[name] for name in dict.fromkeys(names or offered))


def _names(choice: ToolChoiceObject) -> list[str]:
    """Those that it allows; none for all."""
    if choice.type == "function" and choice.function is not None:
        return [choice.function.name]
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return []


def _must_call(choice: ToolChoiceObject) -> bool:
    if choice.allowed_tools is not None:
        return choice.allowed_tools.mode == "required"
    return choice.type in ("required", "function")
