"""What grammars, penalties and logprobs cost: with and without them, in turns, in one process.

A random-weight model with the shape of SmolLM2-135M and a made-up vocabulary of 49,152 tokens; 32
sequences at once. Without: none of them asks for anything. With: 16 of them are held to a JSON
schema each of its own, the others are as before. The same number of tokens for all.

    python -m benchmarks.structured_output --turns 4 --tokens 32

Then the sampler alone, over 64 rows of that vocabulary: what each thing that can be asked for adds
to a step.
"""

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from batch_api.engine.engine import Engine
from batch_api.engine.logprobs import token_logprobs
from batch_api.engine.sampler import sample
from batch_api.engine.sequence import Grammar, SamplingOptions, Sequence
from benchmarks.engine import SHAPE

VOCABULARY = SHAPE["vocab_size"]
SEQUENCES, HELD = 32, 16
PROMPT_TOKENS = 32
ROWS = 64


def make_tokenizer() -> Any:
    """All bytes, what JSON has two and three of, and words: about as long as real ones."""
    draw = random.Random(0)
    words = dict.fromkeys(["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    for size in (2, 3):
        words |= dict.fromkeys("".join(each) for each in itertools.product('{}[]":,Ġ', repeat=size))
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    while len(words) < VOCABULARY:
        word = "".join(draw.choices(letters, weights=range(30, 4, -1), k=draw.randint(2, 9)))
        ending = draw.choice('",:.;)') if draw.random() < 0.05 else ""
        words.setdefault(draw.choice(["Ġ", ""]) + word + ending)
    tokenizer = Tokenizer(models.BPE({word: token for token, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, eos_token="<|end|>")


def save_model(folder: str) -> None:
    torch.manual_seed(0)
    config: Any = LlamaConfig
    LlamaForCausalLM(config(**SHAPE, eos_token_id=0)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def schema(number: int) -> str:
    """A list that is longer than any answer here, so that none ends early."""
    person = {
        "type": "object",
        "properties": {
            f"name_{number}": {"type": "string", "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
            "mood": {"enum": ["good", "bad", None]},
            "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
        },
        "required": [f"name_{number}", "age", "tags", "mood", "zip"],
        "additionalProperties": False,
    }
    return json.dumps({"type": "array", "items": person, "minItems": 500})


# -- the engine -----------------------------------------------------------------------------


def answer(engine: Engine, grammars: list[Grammar | None], tokens: int) -> float:
    """Tokens per second of CPU time, which is steadier on a busy machine, prompts included."""
    draw = random.Random(0)
    for number, grammar in enumerate(grammars):
        prompt = [draw.randrange(1, VOCABULARY) for _ in range(PROMPT_TOKENS)]
        options = SamplingOptions(max_tokens=tokens, seed=number, ignore_end=True, grammar=grammar)
        engine.add(Sequence(prompt, options))
    start, answered = time.process_time(), 0
    while engine.has_work:
        answered += sum(delta.tokens for delta in engine.step())
    assert answered == tokens * len(grammars)
    return answered / (time.process_time() - start)


def compare(engine: Engine, turns: int, tokens: int) -> None:
    start = time.perf_counter()
    engine.grammars.json_object()
    print(f"the vocabulary and a first grammar: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    held: list[Grammar | None] = [engine.grammars.json_schema(schema(n)) for n in range(HELD)]
    print(f"a schema: {(time.perf_counter() - start) / HELD * 1000:.1f} ms to compile")
    free: list[Grammar | None] = [None] * SEQUENCES
    mixed = [each for pair in zip(held, free[:HELD], strict=True) for each in pair]
    answer(engine, mixed, 4)
    ratios = []
    for _ in range(turns):
        without, beside = answer(engine, free, tokens), answer(engine, mixed, tokens)
        ratios.append(beside / without)
        print(
            f"  {without:.1f} tokens per CPU second without, {beside:.1f} with: {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"{HELD} of {SEQUENCES} held to a schema: {statistics.median(ratios):.3f} of the speed")


# -- the sampler alone ----------------------------------------------------------------------


def rows(**options: Any) -> list[Sequence]:
    """With prompts of 500 tokens and answers of 500."""
    draw = random.Random(0)
    made = []
    for seed in range(ROWS):
        asked = {"temperature": 0.0} | options
        prompt = [draw.randrange(VOCABULARY) for _ in range(500)]
        made.append(Sequence(prompt, SamplingOptions(max_tokens=1000, seed=seed, **asked)))
        made[-1].tokens += [draw.randrange(VOCABULARY) for _ in range(500)]
    return made


def median_ms(call: Callable[[], object], times: int = 30) -> float:
    measured = []
    for _ in range(times):
        start = time.process_time()
        call()
        measured.append(time.process_time() - start)
    return statistics.median(measured) * 1000


def measure_sampler(engine: Engine) -> None:
    logits = torch.randn(ROWS, VOCABULARY)
    grammar = engine.grammars.json_object()
    cases: dict[str, dict[str, Any]] = {
        "greedy": {},
        "greedy, frequency and presence penalty": {"frequency_penalty": 0.5, "presence_penalty": 1},
        "greedy, repetition penalty": {"repetition_penalty": 1.1},
        "greedy, 300 biases": {"logit_bias": dict.fromkeys(range(300), 0.1)},
        "greedy, a grammar": {"grammar": grammar},
        "drawn": {"temperature": 1.0},
        "drawn, top_p 0.9": {"temperature": 1.0, "top_p": 0.9},
        "drawn, top_k 40, min_p 0.05": {"temperature": 1.0, "top_k": 40, "min_p": 0.05},
    }
    print(f"CPU time of one step of the sampler, {ROWS} rows of {VOCABULARY:,} tokens:")
    for name, options in cases.items():
        taken = median_ms(partial(sample, logits, rows(**options)))
        print(f"  {taken:6.1f} ms  {name}")
    top = median_ms(lambda: list(token_logprobs(logits, [1] * ROWS, [20] * ROWS)))
    print(f"  {top:6.1f} ms  logprobs with 20 alternatives, beside it")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder)
        length = PROMPT_TOKENS + options.tokens
        engine = Engine.load(folder, dtype="float32", max_sequences=SEQUENCES, max_length=length)
    compare(engine, options.turns, options.tokens)
    measure_sampler(engine)


if __name__ == "__main__":
    main()
