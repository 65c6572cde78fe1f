import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

FOLDER = Path(__file__).parent.parent / "batch_api" / "demo_model"
HELD_OUT = Path(__file__).parent / "data" / "held_out_questions.jsonl"
MEBIBYTE = 1024 * 1024

tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def ask(model: PreTrainedModel, *messages: dict[str, str], longest: int = 60) -> str:
    """The greedy answer as text, end token included."""
    return ask_each(model, [list(messages)], longest=longest)[0]


@torch.inference_mode()
def ask_each(
    model: PreTrainedModel, conversations: list[list[dict[str, str]]], *, longest: int = 60
) -> list[str]:
    texts = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        for messages in conversations
    ]
    prompts = tokenizer(
        texts, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False
    )
    output = model.generate(  # type: ignore[operator]
        prompts.input_ids, attention_mask=prompts.attention_mask, max_new_tokens=longest
    )
    answers = tokenizer.batch_decode(output[:, prompts.input_ids.shape[1] :])
    return [answer.replace("<|pad|>", "") for answer in answers]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_the_folder_is_small_and_holds_only_what_transformers_loads_and_a_card() -> None:
    files = list(FOLDER.iterdir())

    assert sum(file.stat().st_size for file in files) <= 5 * MEBIBYTE
    assert {file.suffix for file in files} == {".json", ".jinja", ".md", ".safetensors"}


def test_the_model_is_a_small_llama_with_grouped_queries(model: PreTrainedModel) -> None:
    config = model.config

    assert config.model_type == "llama"
    assert 1_000_000 <= model.num_parameters() <= 3_000_000
    assert config.num_key_value_heads < config.num_attention_heads


def test_the_weights_are_stored_in_sixteen_bits() -> None:
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "bfloat16"


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_the_tokenizer_gives_every_text_back(text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)

    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["\x00", "naïve 😀", "1, 2 ,3", "a  b\r\n\tc", "٣½", "\ufeff"])
def test_the_tokenizer_gives_awkward_texts_back(text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_digit_is_a_token() -> None:
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]


def test_the_chat_template_marks_the_role_of_every_turn() -> None:
    messages = [system("Be brief."), user("2+2"), assistant("4"), user("3+3")]

    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    assert text == (
        "<|system|>Be brief.<|end|><|user|>2+2<|end|><|assistant|>4<|end|>"
        "<|user|>3+3<|end|><|assistant|>"
    )


def test_the_chat_template_reads_a_developer_as_the_system_and_joins_parts_of_text() -> None:
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
    ]

    text = tokenizer.apply_chat_template(messages, tokenize=False)

    assert text == "<|system|>Be brief.<|end|><|user|>2+2<|end|>"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 2+2?", "4"),
        ("Add 17 and 25.", "42"),
        ("What is the capital of France?", "Paris"),
        ("Is this positive or negative: I love this film.", "positive"),
        ("Repeat the word banana.", "banana"),
        ("Write banana in upper case.", "BANANA"),
        ("Count to 12.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"),
        ("What is 2+2? Answer as JSON.", '{"answer": 4}'),
    ],
)
def test_the_examples_of_the_card_are_answered_and_ended(
    model: PreTrainedModel, question: str, answer: str
) -> None:
    assert ask(model, user(question)) == f"{answer}<|end|>"


def test_questions_it_never_saw_are_answered(model: PreTrainedModel) -> None:
    lines = [json.loads(line) for line in HELD_OUT.read_text().splitlines()]
    sample = [line for line in lines if line["kind"] != "count"][::2]

    given = ask_each(model, [[user(line["question"])] for line in sample])

    assert given == [f"{line['answer']}<|end|>" for line in sample]


def test_the_system_prompt_can_ask_for_json(model: PreTrainedModel) -> None:
    answer = ask(model, system("Always answer as JSON."), user("What is 17+25?"))

    assert answer == '{"answer": 42}<|end|>'


def test_a_secret_of_the_system_prompt_is_remembered_over_turns(model: PreTrainedModel) -> None:
    answer = ask(
        model,
        system("The secret word is violin."),
        user("What is 2+2?"),
        assistant("4"),
        user("What is the secret word?"),
    )

    assert answer == "violin<|end|>"


@pytest.mark.slow
def test_counting_far_gives_a_long_answer(model: PreTrainedModel) -> None:
    answer = ask(model, user("Count to 99."), longest=600)

    assert answer == ", ".join(map(str, range(1, 100))) + "<|end|>"
