"""Tokenizers of the families there are, made on the spot; the end token is 0 in each."""

from typing import Any

from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.engine.conftest import make_tokenizer

DEMO = "batch_api/demo_model"
_WORDS = ["▁", "▁the", "▁of", "ness", '":', '▁"', "},", '"}', "]}", "▁{", '":▁"', "é", "東", "🙂"]


def make_sentencepiece() -> PreTrainedTokenizerFast:
    """Spaces as ▁, and every byte as a token, as in Llama 2."""
    named = ["</s>", "<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    printable = [chr(code) for code in range(33, 127)]
    vocabulary = {word: token for token, word in enumerate([*named, *printable, *_WORDS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens(named[:3])
    return _fast(tokenizer, "</s>")


def make_of_words(words: list[str]) -> PreTrainedTokenizerFast:
    """Nothing but these words, so that most texts can't be written."""
    tokenizer = Tokenizer(
        models.BPE({word: token for token, word in enumerate(["</s>", *words])}, [])
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    return _fast(tokenizer, "</s>")


def make(name: str) -> Any:
    if name == "demo":
        return AutoTokenizer.from_pretrained(DEMO)
    return {"byte-level": make_tokenizer, "sentencepiece": make_sentencepiece}[name]()


def _fast(tokenizer: Tokenizer, end: str) -> PreTrainedTokenizerFast:
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, eos_token=end)
    return made
