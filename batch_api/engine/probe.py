"""Proof, at load, that our packed pass gives what the model's own forward gives; or a refusal.

transformers knows hundreds of architectures. Instead of a list of those that work, a model is
tried: its own eager forward over a few tokens, then the same tokens through chunks, slots, cache
and packed weights. State-space layers, attention sinks, position biases fail here. A model that
embeds is tried alone and beside a neighbour.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from batch_api.engine.attention import NAME, Rule
from batch_api.engine.batcher import Batcher
from batch_api.engine.cache import LayerShape
from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.model import Model, run
from batch_api.engine.sequence import SamplingOptions, Sequence

_LENGTHS = (11, 6)  # of two sequences that run together
_PROMPTS = (8, 3)  # so much of them as prompts, the rest token by token
_BUDGET = 5  # so that the longer prompt takes two chunks
_TOLERANCE = {torch.float32: 1e-3}  # of the spread of the logits
_TOLERANCE_HALF = 0.1
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


def reference(network: PreTrainedModel) -> list[torch.Tensor]:
    """The model's own logits for the trial sequences, one by one: [length, vocab] each."""
    _refuse_by_config(network.config)
    with torch.inference_mode(), _refusing("its own forward pass"):
        forward: Any = network.forward
        inputs = [each.unsqueeze(0).to(network.device) for each in _trial_tokens(network)]
        return [forward(input_ids=each, use_cache=False).logits.squeeze(0) for each in inputs]


def layer_shapes(network: PreTrainedModel) -> list[LayerShape]:
    """From now on the model attends through our function; what each layer keeps of a position."""
    recorder = _Recorder()
    tokens = _trial_tokens(network)[0].to(network.device)
    positions = torch.arange(len(tokens), device=network.device)
    with torch.inference_mode(), _refusing("a pass through transformers' attention interface"):
        network.set_attn_implementation(NAME)
        run(network, recorder, token_ids=tokens, positions=positions, keep=positions)
    layers = network.config.get_text_config().num_hidden_layers
    if sorted(recorder.shapes) != list(range(layers)):
        raise ModelNotLoadable(
            f"{len(recorder.shapes)} of the model's {layers} layers attend through transformers'"
            " attention interface; the engine needs all"
        )
    return [recorder.shapes[layer] for layer in range(layers)]


def check(model: Model, expected: list[torch.Tensor]) -> None:
    """Run the trial sequences together as the engine does, and compare: raises ModelNotLoadable."""
    tolerance = _TOLERANCE.get(expected[0].dtype, _TOLERANCE_HALF)
    with _refusing("a pass with our cache"):
        for row, wanted in _replay(model, expected):
            off = _off(row, wanted)
            if not off < tolerance:
                raise ModelNotLoadable(
                    f"the engine's logits are off by {off:.2g} of their spread: the model attends"
                    " in a way that the engine does not have"
                )


def check_neighbours(
    network: PreTrainedModel, embed: Callable[[list[list[int]]], torch.Tensor]
) -> None:
    """See that a text's vector is the same alone and beside a longer one, padded: raises
    ModelNotLoadable. `embed`: token ids to [texts, size].
    """
    texts = [each.tolist() for each in _trial_tokens(network)]
    with torch.inference_mode(), _refusing("a pass for vectors"):
        for text, vector in zip(texts, embed(texts), strict=True):
            off = _off(vector, embed([text])[0])
            if not off < _TOLERANCE.get(network.dtype, _TOLERANCE_HALF):
                raise ModelNotLoadable(
                    f"a vector is off by {off:.2g} of its spread beside another text: the model"
                    " looks at padding, so it can't embed several texts at once"
                )


def _replay(
    model: Model, expected: list[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Feed the trial tokens whatever the logits say: pairs of rows that should be equal."""
    batcher = Batcher(max_sequences=model.cache.slots, prefill_budget=_BUDGET)
    tokens = [each.tolist() for each in _trial_tokens(model.network)]
    options = SamplingOptions(max_tokens=max(_LENGTHS))
    trials = {
        Sequence(each[:size], options): (each, logits)
        for each, size, logits in zip(tokens, _PROMPTS, expected, strict=True)
    }
    for sequence in trials:
        batcher.add(sequence)
    while batcher.running or batcher.waiting:
        chunks = batcher.next()
        logits = model.forward(chunks)
        batcher.advance(chunks)
        sampled = [chunk.sequence for chunk in chunks if chunk.is_last]
        for row, sequence in zip(logits, sampled, strict=True):
            script, wanted = trials[sequence]
            yield row, wanted[sequence.length - 1]
            if sequence.length == len(script):
                batcher.remove(sequence)
            else:
                sequence.tokens.append(script[sequence.length])


@dataclass(slots=True)
class _Recorder:
    """Attention that only looks at what passes."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: Rule,
    ) -> torch.Tensor:
        if rule.unknown:
            raise ModelNotLoadable(f"the engine's attention has no {', '.join(rule.unknown)}")
        if layer in self.shapes:
            raise ModelNotLoadable("the model attends more than once in a layer")
        self.shapes[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        return query.new_zeros(*query.shape[:2], value.shape[2])


def _off(row: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, in spreads of what is wanted."""
    return float((row - wanted).abs().max()) / max(float(wanted.float().std()), 1e-6)


def _trial_tokens(network: PreTrainedModel) -> list[torch.Tensor]:
    vocabulary = network.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (length,), generator=generator) for length in _LENGTHS]


def _refuse_by_config(config: Any) -> None:
    text = config.get_text_config()
    strange = set(getattr(text, "layer_types", None) or ()) - _KNOWN_LAYERS
    if strange:
        raise ModelNotLoadable(f"the engine has no layers of type {', '.join(sorted(strange))}")
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") == "dynamic":
        raise ModelNotLoadable(
            "dynamic rotary positions depend on the longest neighbour; the engine has none"
        )


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Whatever foreign code raises for a model it was not made for, becomes one sentence."""
    try:
        yield
    except ModelNotLoadable:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise ModelNotLoadable(f"{what} fails: {type(error).__name__}: {error}") from error
