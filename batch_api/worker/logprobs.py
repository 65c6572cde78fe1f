"""Tokens as a reader sees them beside their probabilities: a text, and the exact bytes."""

import json
import re
from typing import TYPE_CHECKING

from batch_api.engine.sequence import TokenLogprob
from batch_api.schemas.chat_completion import Logprobs, TokenInfo, TopToken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


class TokenTexts:
    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self.special = frozenset(tokenizer.all_special_ids)
        self._added = tokenizer.added_tokens_decoder
        self._decoder = _decoder(tokenizer)
        self._known: dict[int, bytes] = {}

    def bytes_of(self, token: int) -> bytes:
        if (known := self._known.get(token)) is None:
            known = self._known[token] = self._bytes_of(token)
        return known

    def _bytes_of(self, token: int) -> bytes:
        if token in self._added:
            return str(self._added[token].content).encode()
        written = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(written, str):  # the model's vocabulary is larger than the tokenizer's
            return b""
        if "ByteLevel" in self._decoder:
            return bytes(_BYTES[character] for character in written if character in _BYTES)
        if "ByteFallback" in self._decoder and (byte := _BYTE_TOKEN.fullmatch(written)):
            return bytes([int(byte[1], 16)])
        if "▁" in self._decoder:
            return written.replace("▁", " ").encode()
        return str(self._tokenizer.decode([token])).encode(errors="replace")

    def text_of(self, token: int) -> str:
        """Parts of characters as OpenAI shows them, so that all texts differ."""
        exact = self.bytes_of(token)
        try:
            return exact.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in exact)


def chat_logprobs(texts: TokenTexts, tokens: list[TokenLogprob]) -> Logprobs:
    return Logprobs([_info(texts, token) for token in tokens])


def _info(texts: TokenTexts, token: TokenLogprob) -> TokenInfo:
    chosen = _shown(texts, token.token, token.logprob)
    likeliest = [_shown(texts, *other) for other in token.top]
    return TokenInfo(chosen.token, chosen.logprob, chosen.bytes, likeliest)


def _shown(texts: TokenTexts, token: int, logprob: float) -> TopToken:
    return TopToken(texts.text_of(token), logprob, list(texts.bytes_of(token)))


def _decoder(tokenizer: "PreTrainedTokenizerBase") -> str:
    """How the tokenizer makes text of tokens, as JSON."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return ""
    return json.dumps(json.loads(backend.decoder.__getstate__()), ensure_ascii=False)


def _byte_characters() -> dict[str, int]:
    """The printable characters by which byte-level tokenizers write bytes, as GPT-2 began it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    written = {chr(byte): byte for byte in printable}
    return written | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_characters()
