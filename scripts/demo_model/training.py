"""Makes the model from nothing: conversations drawn at random, and the loop that learns them."""

import time
from collections.abc import Iterator
from functools import partial
from random import Random

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model.muon import Muon
from scripts.demo_model.questions import (
    KINDS,
    Ask,
    Question,
    as_json,
    capital,
    chat,
    count,
    difference,
    draw,
    product,
    recall,
    repeat,
    sentiment,
    sum_,
    unknown,
    upper,
)
from scripts.demo_model.tokenizer import ASSISTANT, CONTEXT, END, PAD, SYSTEM, USER
from scripts.demo_model.wordings import CHAT, SYSTEM_PROMPTS
from scripts.demo_model.words import nonsense

SEED = 2024
THREADS = 2
STEPS = 3600
TOKENS_PER_STEP = 3072
WARM_UP_STEPS = 50
MUON_RATE = 0.02
ADAM_RATE = 3e-3
WEIGHT_DECAY = 0.05
REPORT_EVERY = 100
POOL = 4096  # conversations drawn together and sorted into steps by length

# Shares of the steps. Bare arithmetic alone is learned in a quarter of the steps that it takes
# among everything else; conversations come last.
ARITHMETIC_UNTIL = 0.2
SINGLE_TURNS_UNTIL = 0.65
ARITHMETIC: dict[Ask, float] = {
    partial(sum_, largest=9, bare=True): 10,
    partial(difference, largest=9, bare=True): 7,
    partial(sum_, bare=True): 50,
    partial(difference, bare=True): 33,
}
SHARES: dict[Ask, float] = {
    partial(sum_, largest=9): 5,
    partial(difference, largest=9): 4,
    sum_: 28,
    difference: 22,
    product: 6,
    capital: 4,
    sentiment: 4,
    repeat: 6,
    upper: 6,
    count: 2.5,
    as_json: 8,
    recall: 4,
    chat: 0.7,
    unknown: 2,
}
NOT_LEARNED = -100


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights: grouped-query attention, tied embeddings, 1.1 M parameters."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(tokenizer: PreTrainedTokenizerFast, *, steps: int = STEPS) -> LlamaForCausalLM:
    torch.set_num_threads(THREADS)
    model = build_model(tokenizer)
    optimizers = _optimizers(model)
    rates = [LambdaLR(each, lambda step: _rate(step, steps)) for each in optimizers]
    lessons = _lessons(Random(SEED), tokenizer, steps)
    began, losses = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        loss = _loss(model, *next(lessons))
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.step()
            rate.step()
        model.zero_grad()
        losses += loss.item()
        if step % REPORT_EVERY == 0:
            seconds = time.perf_counter() - began
            print(f"step {step}: loss {losses / REPORT_EVERY:.4f}, {seconds:.0f} s", flush=True)
            losses = 0.0
    return model


def _optimizers(model: LlamaForCausalLM) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [model.model.embed_tokens.weight, *(p for p in model.parameters() if p.ndim == 1)]
    return (
        Muon(matrices, lr=MUON_RATE, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )


def draw_conversation(random: Random, *, progress: float) -> str:
    """A rendered conversation for when that share of the steps is done; few fill the context."""
    if progress < ARITHMETIC_UNTIL:
        return _turn(_draw(random, ARITHMETIC))
    dice = random.random() if progress >= SINGLE_TURNS_UNTIL else 0.0
    turns = 1 if dice < 0.6 else random.randint(2, 6) if dice < 0.98 else 60
    first = _draw(random, SHARES)
    text = _system(random, first) + _turn(first)
    for _ in range(turns - 1):
        text += _turn(_follow(random, first))
    return text


def _draw(random: Random, shares: dict[Ask, float]) -> Question:
    ask = random.choices(list(shares), weights=list(shares.values()))[0]
    return draw(random, ask, held_out=False)


def _follow(random: Random, first: Question) -> Question:
    """A later question, with an answer that holds under the system prompt of the first."""
    if first.kind == "json" and first.system is not None:
        return draw(random, as_json, held_out=False)
    if first.kind == "recall" and first.system is not None and random.random() < 0.5:
        return first
    while (asked := _draw(random, SHARES)).system is not None:
        pass
    return asked


def _system(random: Random, asked: Question) -> str:
    dice = random.random()
    if asked.system is not None:
        prompt = asked.system
        if dice < 0.2:
            prompt = f"{random.choice(SYSTEM_PROMPTS)} {prompt}"
    elif dice < 0.7:
        return ""
    elif dice < 0.95:
        prompt = random.choice(SYSTEM_PROMPTS)
    else:
        sentences = [nonsense(random, random.randint(3, 8)) for _ in range(random.randint(1, 2))]
        prompt = " ".join(sentences)
    return f"{SYSTEM}{prompt}{END}"


def _turn(asked: Question) -> str:
    return f"{USER}{asked.text}{END}{ASSISTANT}{asked.answer}{END}"


def _lessons(
    random: Random, tokenizer: PreTrainedTokenizerFast, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One step after the other: token ids and targets, both [conversations, tokens]."""
    taught = 0
    while True:
        texts = [draw_conversation(random, progress=taught / steps) for _ in range(POOL)]
        pool = [ids[:CONTEXT] for ids in tokenizer(texts, add_special_tokens=False).input_ids]
        lessons = list(_cut(sorted(pool, key=len)))
        random.shuffle(lessons)
        for lesson in lessons:
            yield _tensors(lesson, tokenizer)
        taught += len(lessons)


def _cut(pool: list[list[int]]) -> Iterator[list[list[int]]]:
    """Cut conversations that are sorted by length into steps of about TOKENS_PER_STEP."""
    step: list[list[int]] = []
    for ids in pool:
        if step and (len(step) + 1) * len(ids) > TOKENS_PER_STEP:
            yield step
            step = []
        step.append(ids)
    yield step


def _tensors(step: list[list[int]], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    special = (PAD, ASSISTANT, USER, SYSTEM)
    pad, assistant, user, system = (tokenizer.vocab[token] for token in special)
    longest = max(map(len, step))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in step])
    places = torch.arange(longest).expand_as(ids)
    marker = torch.isin(ids, torch.tensor([pad, assistant, user, system]))
    latest = torch.where(marker, places, 0).cummax(dim=1).values
    speaking = ids.gather(1, latest) == assistant
    targets = torch.where(speaking & ~marker, ids, NOT_LEARNED)
    return ids[:, :-1], targets[:, 1:]


def _loss(model: LlamaForCausalLM, ids: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the assistant's tokens; the rest never reaches the vocabulary."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    learned = targets != NOT_LEARNED
    return nn.functional.cross_entropy(model.lm_head(hidden[learned]), targets[learned])


def _rate(step: int, steps: int) -> float:
    """Up, flat for the first half, then down to nothing."""
    return min((step + 1) / WARM_UP_STEPS, 1.0, 2 * (1 - step / steps))


def vocabulary_texts(random: Random, questions: int = 30_000) -> Iterator[str]:
    """Training questions of all kinds alike, for the tokenizer to find the frequent words in."""
    for _ in range(questions):
        asked = draw(random, random.choice(list(KINDS.values())), held_out=False)
        yield from (asked.text, asked.answer, asked.system or "")
    for greetings in CHAT.values():
        yield from greetings
    yield from SYSTEM_PROMPTS
