"""The same tokens as transformers' own `generate`, for models that attend differently."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from batch_api.engine.engine import Engine
from tests.engine.conftest import ARCHITECTURES, MakeModel, finish, greedy

pytestmark = pytest.mark.slow


def generate(folder: Path, prompt: list[int], new: int) -> list[int]:
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, attn_implementation="eager")
    inputs = torch.tensor([prompt])
    output = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new, do_sample=False
    )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_answers_equal_generate(make_model: MakeModel, architecture: str) -> None:
    folder = make_model(architecture)
    engine = Engine.load(
        str(folder), dtype="float32", max_sequences=3, max_length=96, prefill_budget=16
    )
    generator = torch.Generator().manual_seed(7)
    prompts = [
        torch.randint(1, 320, (size,), generator=generator).tolist() for size in (1, 5, 17, 33, 40)
    ]
    sequences = [greedy(prompt, 24) for prompt in prompts]

    finish(engine, *sequences)

    for sequence in sequences:
        assert sequence.tokens == generate(folder, sequence.prompt, 24)
