"""What of one completion's sequence is still to be told."""

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

from batch_api.engine.sequence import TokenLogprob
from batch_api.schemas.completions import (
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from batch_api.worker.choice import Choice
from batch_api.worker.logprobs import TokenTexts

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.engine import Engine

_utf8 = getincrementaldecoder("utf-8")

_Scored = tuple[int, TokenLogprob | None]
"""A token; the first of a prompt has no probability."""


class CompletionTeller:
    def __init__(
        self, body: CompletionRequest, engine: "Engine", *, prompt: list[int], echo: str
    ) -> None:
        self._texts = TokenTexts(engine.tokenizer)
        self._choice = Choice(hidden=self._texts.special)
        self._echoes = body.echo
        self._wants_logprobs = body.logprobs is not None
        self._prompt = prompt
        self._echo = self._text = echo
        self._scored: list[_Scored] = []
        self._offset = 0
        self._decoder = _utf8(errors="replace")

    @property
    def tokens(self) -> int:
        return self._choice.tokens

    @property
    def mean_logprob(self) -> float:
        """The end token counts: an answer that ends at once is not the likeliest for that."""
        return self._choice.total_logprob / max(1, self._choice.tokens)

    @property
    def has_news(self) -> bool:
        return bool(self._text) or self._choice.finish_reason is not None

    def add(self, delta: "Delta") -> None:
        self._choice.add(delta)
        self._text += delta.text
        if self._echoes and delta.prompt_logprobs:
            self._scored += zip(self._prompt, delta.prompt_logprobs, strict=True)
        self._scored += [(each.token, each) for each in self._choice.take_logprobs()]

    def tell(self, index: int) -> CompletionChoice:
        """What was not told yet."""
        text, self._text = self._text, ""
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=self._logprobs() if self._wants_logprobs else None,
            finish_reason=self._choice.finish_reason,
        )

    def _logprobs(self) -> CompletionLogprobs:
        scored, self._scored = self._scored, []
        return CompletionLogprobs(
            tokens=[self._texts.text_of(token) for token, _ in scored],
            token_logprobs=[score.logprob if score else None for _, score in scored],
            top_logprobs=[self._top(score) if score else None for _, score in scored],
            text_offset=[self._offset_of(token) for token, _ in scored],
        )

    def _top(self, score: TokenLogprob) -> dict[str, float]:
        """The chosen token stands among the likeliest ones."""
        likeliest = {self._texts.text_of(token): logprob for token, logprob in score.top}
        return likeliest | {self._texts.text_of(score.token): score.logprob}

    def _offset_of(self, token: int) -> int:
        """Where the token's text begins, in characters: a part of one begins where that does."""
        offset, exact = self._offset, self._texts.bytes_of(token)
        if token not in self._texts.special or self._is_echoed(exact):
            self._offset += len(self._decoder.decode(exact))
        return offset

    def _is_echoed(self, special: bytes) -> bool:
        """Special tokens show where the prompt spells them, and nowhere else."""
        return self._echo.startswith(special.decode(errors="replace"), self._offset)
