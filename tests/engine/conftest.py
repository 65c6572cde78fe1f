"""Small random models of several architectures, with a byte-level tokenizer, made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from batch_api.engine.engine import Engine
from batch_api.engine.sequence import SamplingOptions, Sequence

torch.set_num_threads(1)  # the models are tiny

END = "<|end|>"
TEXT = ["the quick brown fox jumps over the lazy dog", "größer als früher", "naïve café, 東京 🙂"]
SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "pad_token_id": None,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 3},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 9},
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 9,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 20.0,
        "query_pre_attn_scalar": 16,
    },
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 9},
    "gpt_neox": {"rotary_pct": 0.25},
    "gpt2": {},
    "phi3": {"num_key_value_heads": 2},
    "granite": {"num_key_value_heads": 2, "logits_scaling": 3.0, "attention_multiplier": 0.2},
    "olmo2": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
}

MakeModel = Callable[..., Path]


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL["vocab_size"],
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, eos_token=END)
    return made


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A folder with a random model; the same folder for the same arguments."""
    made: dict[str, Path] = {}

    def make(architecture: str = "llama", **changes: Any) -> Path:
        key = f"{architecture}{changes}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp(architecture)
            _save(architecture, made[key], changes)
        return made[key]

    return make


def _save(architecture: str, folder: Path, changes: dict[str, Any]) -> None:
    settings = SMALL | ARCHITECTURES.get(architecture, {}) | changes
    config = AutoConfig.for_model(architecture, **settings)
    torch.manual_seed(1)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="session")
def llama(make_model: MakeModel) -> Path:
    return make_model("llama")


@pytest.fixture
def engine(llama: Path) -> Engine:
    return Engine.load(str(llama), dtype="float32", max_sequences=8, max_length=128)


def greedy(prompt: list[int], max_tokens: int = 12, **changes: Any) -> Sequence:
    options = SamplingOptions(max_tokens=max_tokens, temperature=0, **changes)
    return Sequence(prompt, options)


def finish(engine: Engine, *sequences: Sequence) -> dict[Sequence, str]:
    """Run everything to its end; the text of each."""
    texts = dict.fromkeys(sequences, "")
    for sequence in sequences:
        engine.add(sequence)
    while engine.has_work:
        for delta in engine.step():
            texts[delta.sequence] = texts.get(delta.sequence, "") + delta.text
    return texts
