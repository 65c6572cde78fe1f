"""The grammar that a request asks for, if any: OpenAI's `response_format`, or vLLM's words."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_api.engine.errors import GrammarRefused
from batch_api.engine.sequence import Grammar
from batch_api.errors import BadRequest
from batch_api.schemas.response_format import ResponseFormat
from batch_api.schemas.sampling import SamplingBody

if TYPE_CHECKING:
    from batch_api.engine.grammar import GrammarCompiler

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Structure:
    """A wish for a grammar, and the parameter that it came in."""

    param: str
    code: str
    compile: Callable[["GrammarCompiler"], Grammar]
    schema: Any = None  # if it is one

    def grammar(self, grammars: "GrammarCompiler") -> Grammar:
        """Takes a while: not for the event loop. Raises BadRequest."""
        try:
            return self.compile(grammars)
        except GrammarRefused as error:
            message = f"Invalid '{self.param}': {error}"
            raise BadRequest(message, param=self.param, code=self.code) from error


def structure(body: SamplingBody) -> Structure | None:
    """Raises BadRequest for more than one."""
    wishes = list(_wishes(body))
    if len(wishes) > 1:
        raise BadRequest(
            f"An answer can have one form: '{wishes[0].param}' or '{wishes[1].param}'.",
            param=wishes[1].param,
            code="invalid_value",
        )
    return wishes[0] if wishes else None


def schema_text(schema: Any) -> str:
    """vLLM takes a schema as an object and as text."""
    return schema if isinstance(schema, str) else json.dumps(schema)


def _wishes(body: SamplingBody) -> Iterator[Structure]:
    if body.response_format is not None:
        yield from _of_format(body.response_format)
    if body.guided_json is not None:
        yield _json(body.guided_json, "guided_json")
    if body.guided_regex is not None:
        yield _regex(body.guided_regex, "guided_regex")
    if body.guided_choice:
        yield _choice(body.guided_choice, "guided_choice")
    if (wish := body.structured_outputs) is not None:
        if wish.json_ is not None:
            yield _json(wish.json_, "structured_outputs.json")
        if wish.json_object:
            yield _json_object("structured_outputs.json_object")
        if wish.regex is not None:
            yield _regex(wish.regex, "structured_outputs.regex")
        if wish.choice:
            yield _choice(wish.choice, "structured_outputs.choice")


def _of_format(form: ResponseFormat) -> Iterator[Structure]:
    schema = form.json_schema.schema_ if form.json_schema is not None else None
    if form.type == "json_schema" and schema is not None:
        yield _json(schema, "response_format", code="invalid_json_schema")
    elif form.type != "text":
        yield _json_object("response_format")


def _json_object(param: str) -> Structure:
    return Structure(
        param, "invalid_value", lambda grammars: grammars.json_object(), schema=_ANY_OBJECT
    )


def _json(schema: Any, param: str, *, code: str = "invalid_value") -> Structure:
    def compiled(grammars: "GrammarCompiler") -> Grammar:
        return grammars.json_schema(schema_text(schema))

    return Structure(param, code, compiled, schema=schema)


def _regex(pattern: str, param: str) -> Structure:
    return Structure(param, "invalid_value", lambda grammars: grammars.regex(pattern))


def _choice(options: list[str], param: str) -> Structure:
    return Structure(param, "invalid_value", lambda grammars: grammars.choice(tuple(options)))
