"""Makes the model from nothing: the loop that learns conversations, and what goes into a step."""

import time
from collections.abc import Iterator
from random import Random

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model.conversations import LESSONS, PRACTICE, SEED, Course, draw_conversation
from scripts.demo_model.muon import Muon
from scripts.demo_model.tokenizer import ASSISTANT, CONTEXT, PAD, SYSTEM, USER

THREADS = 2
TOKENS_PER_STEP = 3072
WARM_UP_STEPS = 50
MUON_RATE = 0.02
ADAM_RATE = 3e-3
WEIGHT_DECAY = 0.05
REPORT_EVERY = 100
POOL = 4096  # conversations drawn together and sorted into steps by length

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


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The finished model in bfloat16; practice begins with weights that are already rounded."""
    torch.set_num_threads(THREADS)
    model = build_model(tokenizer)
    teach(model, tokenizer, LESSONS)
    teach(model.bfloat16().float(), tokenizer, PRACTICE)  # type: ignore[no-untyped-call]
    return model.bfloat16()


def teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, course: Course) -> None:
    optimizers = _optimizers(model, course.rate)
    rates = [LambdaLR(each, lambda step: _rate(step, course.steps)) for each in optimizers]
    lessons = _lessons(course, tokenizer)
    weights = torch.ones(len(tokenizer))
    weights[tokenizer.eos_token_id] = course.end_weight
    began, losses = time.perf_counter(), 0.0
    for step in range(1, course.steps + 1):
        loss = _loss(model, *next(lessons), weights)
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


def _optimizers(model: LlamaForCausalLM, rate: float) -> tuple[Optimizer, Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [model.model.embed_tokens.weight, *(p for p in model.parameters() if p.ndim == 1)]
    return (
        Muon(matrices, lr=rate * MUON_RATE, weight_decay=WEIGHT_DECAY),
        AdamW(others, lr=rate * ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _lessons(course: Course, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """One step after the other: token ids and targets, both [conversations, tokens]."""
    random, taught = Random(course.seed), 0
    while True:
        progress = taught / course.steps
        texts = [draw_conversation(random, course, progress=progress) for _ in range(POOL)]
        pool = tokenizer(texts, add_special_tokens=False, truncation=True).input_ids
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


def _loss(model: LlamaForCausalLM, ids: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the assistant's tokens; the rest never reaches the vocabulary."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    learned = targets != NOT_LEARNED
    logits = model.lm_head(hidden[learned])
    return nn.functional.cross_entropy(logits, targets[learned], weight=weights)


def _rate(step: int, steps: int) -> float:
    """Up, flat for the first half, then down to nothing."""
    return min((step + 1) / WARM_UP_STEPS, 1.0, 2 * (1 - step / steps))
