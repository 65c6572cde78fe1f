"""The syntaxes, and which of them a model speaks.

Hermes, also Qwen's:  <tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>
Llama 3's:            {"name": "f", "parameters": {…}}; {…}     (perhaps after <|python_tag|>)
Mistral's:            [TOOL_CALLS][{"name": "f", "arguments": {…}}, {…}]
newer Mistral's:      [TOOL_CALLS]f[ARGS]{…}[TOOL_CALLS]g[ARGS]{…}
"""

import hashlib
import json
import re
import secrets
import string

from batch_api.worker.tool_syntax.parsing import MarkedParser, Marks
from batch_api.worker.tool_syntax.pieces import Frame, Syntax
from batch_api.worker.tool_syntax.readers import NamedReader, ObjectReader, Reader

_ALPHANUMERIC = string.ascii_letters + string.digits


class _Objects:
    """Calls as objects between marks, with ids like OpenAI's."""

    _marks: Marks

    def parser(self, names: frozenset[str]) -> MarkedParser:
        return MarkedParser(self._marks, lambda _: ObjectReader(names))

    def call_id(self) -> str:
        return f"call_{_random_text(24)}"

    def known_id(self, id: str) -> str:
        return id


class Hermes(_Objects):
    markers = ("<tool_call>", "</tool_call>")
    frame = Frame(separator="\n")
    _marks = Marks(open="<tool_call>", close="</tool_call>")

    def around(self, name: str) -> tuple[str, str]:
        return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": ', "}\n</tool_call>"


class Llama(_Objects):
    markers = ("<|python_tag|>",)
    frame = Frame(separator="; ")
    _marks = Marks(open="<|python_tag|>", next=";", may_be_omitted=True)

    def around(self, name: str) -> tuple[str, str]:
        return f'{{"name": {json.dumps(name)}, "parameters": ', "}"


class Mistral:
    """Its templates demand ids of nine letters and digits."""

    markers = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    frame = Frame(begin="[TOOL_CALLS][", separator=", ", end="]")
    _marks = Marks(open="[TOOL_CALLS]", list_open="[", next=",", close="]")

    def around(self, name: str) -> tuple[str, str]:
        return f'{{"name": {json.dumps(name)}, "arguments": ', "}"

    def parser(self, names: frozenset[str]) -> MarkedParser:
        def reader(first: str) -> Reader:
            return ObjectReader(names) if first == "{" else NamedReader(names)

        return MarkedParser(self._marks, reader)

    def call_id(self) -> str:
        return _random_text(9)

    def known_id(self, id: str) -> str:
        if re.fullmatch("[a-zA-Z0-9]{9}", id):
            return id
        return hashlib.sha256(id.encode(errors="replace")).hexdigest()[:9]


class NewerMistral(Mistral):
    frame = Frame()

    def around(self, name: str) -> tuple[str, str]:
        return f"[TOOL_CALLS]{name}[ARGS]", ""


def syntax_of(template: str) -> Syntax | None:
    """What a chat template that knows tools teaches; None if it is none of these."""
    if "[TOOL_CALLS]" in template:
        return NewerMistral() if "[ARGS]" in template else Mistral()
    if "<tool_call>" in template:
        return None if re.search("<function=|<arg_key>", template) else Hermes()
    if "<|python_tag|>" in template or ("ipython" in template and '"parameters"' in template):
        return Llama()
    return None


def _random_text(size: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(size))
