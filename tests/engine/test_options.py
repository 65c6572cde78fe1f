"""What a sequence may ask for, from the engine as a whole."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from batch_api.engine.engine import Delta, Engine, PromptTooLong, UnknownToken
from batch_api.engine.sequence import FinishReason, SamplingOptions, Sequence, TokenLogprob
from tests.engine.conftest import finish, greedy

VOCABULARY = 320
END_TOKEN = 0


def asking(prompt: list[int], **options: Any) -> Sequence:
    return Sequence(prompt, SamplingOptions(**{"max_tokens": 20, "seed": 3} | options))


def deltas(engine: Engine, *sequences: Sequence) -> dict[Sequence, list[Delta]]:
    found: dict[Sequence, list[Delta]] = {each: [] for each in sequences}
    for each in sequences:
        engine.add(each)
    while engine.has_work:
        for delta in engine.step():
            found[delta.sequence].append(delta)
    return found


def logprobs(steps: list[Delta]) -> list[TokenLogprob]:
    return [each for delta in steps for each in delta.logprobs]


def mixed_options(random: Random) -> dict[str, Any]:
    """Some of all there is, drawn."""
    drawn: dict[str, Any] = {
        "max_tokens": random.randint(1, 25),
        "temperature": random.choice([0.0, 0.0, 0.7, 1.0, 1.8]),
        "top_p": random.choice([1.0, 0.9, 0.3]),
        "top_k": random.choice([0, 0, 1, 40]),
        "min_p": random.choice([0.0, 0.0, 0.05]),
        "frequency_penalty": random.choice([0.0, 0.0, 1.5, -0.4]),
        "presence_penalty": random.choice([0.0, 0.0, 1.0]),
        "repetition_penalty": random.choice([1.0, 1.0, 1.4]),
        "logit_bias": random.choice([{}, {5: 4.0, 9: -100.0}]),
        "seed": random.randrange(1000),
        "min_tokens": random.choice([0, 5]),
        "stop_tokens": random.choice([frozenset(), frozenset({17, 40})]),
        "logprobs": random.choice([None, 0, 3]),
    }
    return drawn


@pytest.mark.slow
def test_64_requests_with_all_parameters_get_the_answers_they_get_one_by_one(llama: Path) -> None:
    engine = Engine.load(str(llama), dtype="float32", max_sequences=64, max_length=128)
    random = Random(1)
    asked = [
        ([random.randrange(1, VOCABULARY) for _ in range(random.randint(1, 60))], options)
        for options in (mixed_options(random) for _ in range(64))
    ]

    crowd = [asking(prompt, **options) for prompt, options in asked]
    together = deltas(engine, *crowd)

    for sequence, (prompt, options) in zip(crowd, asked, strict=True):
        alone = asking(prompt, **options)
        (steps,) = deltas(engine, alone).values()
        assert sequence.tokens == alone.tokens
        assert sequence.finish_reason is alone.finish_reason
        for one, other in zip(logprobs(together[sequence]), logprobs(steps), strict=True):
            assert (one.token, [token for token, _ in one.top]) == (
                other.token,
                [token for token, _ in other.top],
            )
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def reference(folder: Path, tokens: list[int]) -> torch.Tensor:
    """transformers' own logprobs after each token: [tokens, vocab]."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits.log_softmax(dim=-1)


def test_logprobs_are_the_models_own_whatever_was_done_to_the_logits(
    engine: Engine, llama: Path
) -> None:
    prompt = [5, 6, 7, 8]
    changed = asking(
        prompt, logprobs=2, temperature=1.7, top_k=50, presence_penalty=1.0, logit_bias={9: 3.0}
    )

    (steps,) = deltas(engine, changed).values()

    rows = reference(llama, prompt + changed.tokens)[len(prompt) - 1 :]
    for delta, token, row in zip(steps, changed.tokens, rows, strict=False):
        (score,) = delta.logprobs
        best = row.topk(2)
        assert (score.token, delta.tokens) == (token, 1)
        assert score.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [each for each, _ in score.top] == best.indices.tolist()
        assert [each for _, each in score.top] == pytest.approx(best.values.tolist(), abs=1e-3)


def test_who_asks_for_no_logprobs_gets_none(engine: Engine) -> None:
    silent, asked = asking([4, 5]), asking([4, 5], logprobs=0)

    found = deltas(engine, silent, asked)

    assert silent.tokens == asked.tokens
    assert logprobs(found[silent]) == []
    assert [(each.token, each.top) for each in logprobs(found[asked])] == [
        (token, ()) for token in asked.tokens
    ]
    assert all(delta.prompt_logprobs == () for steps in found.values() for delta in steps)


@pytest.mark.parametrize("budget", [1, 3, 7, 1000])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_prompt_logprobs_come_with_the_first_delta_however_the_prompt_is_cut(
    llama: Path, budget: int, max_tokens: int
) -> None:
    engine = Engine.load(
        str(llama), dtype="float32", max_sequences=4, max_length=64, prefill_budget=budget
    )
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [30], [40, 41, 40, 41]]
    scored = [asking(each, max_tokens=max_tokens, prompt_logprobs=2) for each in prompts]
    crowd = greedy([9, 9, 9], 6)

    found = deltas(engine, scored[0], crowd, *scored[1:])

    for prompt, sequence in zip(prompts, scored, strict=True):
        first, *rest = found[sequence]
        assert len(first.prompt_logprobs) == len(prompt)
        assert first.prompt_logprobs[0] is None
        rows = reference(llama, prompt)
        for score, token, row in zip(first.prompt_logprobs[1:], prompt[1:], rows, strict=False):
            assert score is not None
            assert score.token == token
            assert score.logprob == pytest.approx(float(row[token]), abs=1e-3)
            assert [each for each, _ in score.top] == row.topk(2).indices.tolist()
        assert all(delta.prompt_logprobs == () for delta in rest)
        plain = asking(prompt, max_tokens=max(1, max_tokens))
        finish(engine, plain)
        assert sequence.tokens == plain.tokens[:max_tokens]
    assert all(delta.prompt_logprobs == () for delta in found[crowd])


def test_a_prompt_alone_is_scored_without_a_new_token_even_if_it_fills_the_cache(
    engine: Engine,
) -> None:
    scored = asking([7] * 128, max_tokens=0, prompt_logprobs=0)

    (steps,) = deltas(engine, scored).values()

    (delta,) = steps
    assert (delta.tokens, delta.text, delta.finish_reason) == (0, "", FinishReason.LENGTH)
    assert (len(delta.prompt_logprobs), scored.tokens) == (128, [])
    with pytest.raises(PromptTooLong):
        engine.add(asking([7] * 129, max_tokens=0, prompt_logprobs=0))


def test_no_tokens_at_all_can_be_asked_for_only_with_logprobs_of_the_prompt() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        SamplingOptions(max_tokens=0)


def test_a_cancelled_sequence_leaves_no_scores_behind(llama: Path) -> None:
    engine = Engine.load(
        str(llama), dtype="float32", max_sequences=2, max_length=64, prefill_budget=3
    )
    scored = asking([1] * 20, prompt_logprobs=0)
    engine.add(scored)
    engine.step()

    engine.cancel(scored)

    assert engine._prompt_scores._scores == {}
    assert not engine.has_work


def test_min_tokens_keeps_an_answer_from_ending(engine: Engine) -> None:
    wants_to_end = {END_TOKEN: 100.0}
    for least in (0, 1, 7):
        sequence = asking([4, 5], min_tokens=least, logit_bias=wants_to_end)

        finish(engine, sequence)

        assert sequence.tokens.index(END_TOKEN) == least == len(sequence.tokens) - 1
        assert sequence.finish_reason is FinishReason.STOP


def test_a_stop_token_ends_an_answer_and_does_not_show(engine: Engine) -> None:
    free = greedy([3, 1, 4, 1, 5], 30, ignore_end=True)
    whole = finish(engine, free)[free]
    stop = free.tokens[12]
    place = free.tokens.index(stop)
    stopped = greedy(free.prompt, 30, ignore_end=True, stop_tokens=frozenset({stop}))

    text = finish(engine, stopped)[stopped]

    assert stopped.tokens == free.tokens[: place + 1]
    assert stopped.finish_reason is FinishReason.STOP
    assert text == str(engine.tokenizer.decode(free.tokens[:place]))
    assert whole.startswith(text.rstrip("\ufffd"))


def test_stop_strings_are_not_looked_for_before_min_tokens(engine: Engine) -> None:
    free = greedy([3, 1, 4, 1, 5], 30, ignore_end=True)
    finish(engine, free)
    texts = [str(engine.tokenizer.decode(free.tokens[:count])) for count in range(31)]
    stop = next(each[-1] for each in texts[3:] if each[-1:].isalnum())
    for least in (0, 6, 15, 30):
        late = greedy(free.prompt, 30, ignore_end=True, stop=(stop,), min_tokens=least)

        finish(engine, late)

        assert len(late.tokens) >= min(30, least + 1)
        assert late.tokens == free.tokens[: len(late.tokens)]
        assert (late.finish_reason is FinishReason.STOP) == any(
            stop in text[len(texts[least]) :] for text in texts[least + 1 :]
        )


@pytest.mark.parametrize("token", [-1, VOCABULARY, 10**9])
def test_a_token_that_the_model_does_not_have_is_refused_by_name(
    engine: Engine, token: int
) -> None:
    for sequence in (asking([1, token]), asking([1], logit_bias={token: 1.0})):
        with pytest.raises(UnknownToken, match=f"no token {token}; .* 0 to 319"):
            engine.add(sequence)
    assert not engine.has_work


@pytest.mark.parametrize(
    "options", [{"top_k": -1}, {"min_p": 1.1}, {"min_p": -0.1}, {"repetition_penalty": 0.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        asking([1], **options)
