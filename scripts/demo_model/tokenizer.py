"""The tokenizer and chat template: whole tokens for the words of the questions, bytes for the rest.

There are no merges: a word of the vocabulary is one token and any other text is its bytes, so
every text can be encoded, every digit is a token, and a made-up word can be copied byte by byte.
"""

from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SYSTEM, USER, ASSISTANT, END, PAD = SPECIAL = (
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|pad|>",
)
VOCABULARY = 640
CONTEXT = 1024

# One digit, a word with the space before it, the comma of a list of numbers, or one character.
_PIECES = r"\p{N}| ?\p{L}+|, (?=\p{N})|[^\p{N}\p{L}]"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role in ('system', 'developer') -%}
        {{- '<|system|>' -}}
    {%- elif message.role in ('user', 'assistant') -%}
        {{- '<|' + message.role + '|>' -}}
    {%- else -%}
        {{- raise_exception('This model has no role ' + message.role + '.') -}}
    {%- endif -%}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content or [] if part.type == 'text' -%}
            {{- part.text -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose whole words are the most frequent ones of the texts."""
    split = _split()
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted((piece for piece in counts if len(piece) > 1), key=lambda p: (-counts[p], p))
    pieces = [*SPECIAL, *letters, *words][:VOCABULARY]
    model = models.BPE(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], ignore_merges=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _split() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
