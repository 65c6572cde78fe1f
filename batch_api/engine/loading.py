"""From a folder or a hub name to a model that fits into memory, its cache beside it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from batch_api.engine import linears
from batch_api.engine.cache import Cache, bytes_per_slot
from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.fitting import fit
from batch_api.engine.memory import free_bytes
from batch_api.engine.model import Model
from batch_api.engine.probe import check, layer_shapes, reference

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FAILURES = (
    *(OSError, ValueError, RuntimeError, ImportError, LookupError, SafetensorError),
    *(AssertionError, MemoryError),  # torch without CUDA asserts; without memory it raises either
)
_UNUSED = "pooler."  # weights that encoders may have for tasks that are not ours
_SHARE = {"cpu": 0.5, "cuda": 0.9}  # of the free memory, for the cache

_log = logging.getLogger(__name__)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    with refusing(f"no tokenizer of {name}"):
        tokenizer = AutoTokenizer.from_pretrained(name)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def load_model(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    max_sequences: int,
    max_length: int | None,
) -> Model:
    """Load, take the cache's memory, and see that the model computes what it should."""
    network = load_network(
        AutoModelForCausalLM, name, device=device, dtype=dtype, attn_implementation="eager"
    )
    expected = reference(network)
    shapes = layer_shapes(network)
    if device.type == "cpu":
        linears.pack(network)
    slots, positions = fit(
        network.config,
        bytes_per_slot(shapes, positions=1, dtype=dtype),
        free=int(free_bytes(device) * _SHARE.get(device.type, 0.5)),
        max_sequences=max_sequences,
        max_length=max_length,
    )
    with refusing(f"no memory for {slots} sequences of {positions} positions"):
        cache = Cache(shapes, slots=slots, positions=positions, dtype=dtype, device=device)
    model = Model(network, cache)
    check(model, expected)
    _log_loaded(name, model)
    return model


def choose_device(name: str | None) -> torch.device:
    """As asked for, if it works; else a GPU where there is one."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    with refusing(f"the device {name} can't be used"):
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    return device


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """As asked for; else bf16 where the hardware multiplies it, and fp32 where not."""
    if name is None:
        has_bf16 = device.type == "cuda" or linears.has_fast_bf16()
        return torch.bfloat16 if has_bf16 else torch.float32
    if name not in _DTYPES:
        raise ModelNotLoadable(f"the dtype {name} is none of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """What the generation settings and the tokenizer name; the config, often stale, if neither."""
    named = _token_set(network.generation_config) | _token_set(tokenizer)
    return named or _token_set(network.config)


def _token_set(source: object) -> frozenset[int]:
    token: Any = getattr(source, "eos_token_id", None)
    if token is None:
        return frozenset()
    return frozenset(token if isinstance(token, list) else [token])


def load_network(
    auto: Any, name: str, *, device: torch.device, dtype: torch.dtype, **options: Any
) -> PreTrainedModel:
    """`auto`: one of transformers' Auto classes. Raises ModelNotLoadable."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with refusing(f"{name} cannot be loaded"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise ModelNotLoadable(f"{name} is an encoder-decoder, which the engine does not run")
        network, report = auto.from_pretrained(
            name,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
        lacking = [key for key in report["missing_keys"] if not key.startswith(_UNUSED)]
        if lacking:
            raise ModelNotLoadable(f"{name} lacks {len(lacking)} of the model's weights")
        loaded: PreTrainedModel = network.to(device).eval()
    return loaded


def _log_loaded(name: str, model: Model) -> None:
    _log.info(
        "model loaded",
        extra={
            "model": name,
            "sequences": model.cache.slots,
            "length": model.cache.positions,
            "cache_bytes": model.cache.memory_bytes,
            "bytes": model.memory_bytes,
        },
    )


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever goes wrong with files, devices and memory, becomes one sentence."""
    try:
        yield
    except ModelNotLoadable:
        raise
    except _FAILURES as error:
        raise ModelNotLoadable(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
