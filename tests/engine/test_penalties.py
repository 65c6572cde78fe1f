"""Each penalty and bias against a plain implementation, or transformers' own."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from batch_api.engine.penalties import add_biases, penalize
from batch_api.engine.sequence import SamplingOptions, Sequence

VOCABULARY = 40
TOKENS = st.integers(0, VOCABULARY - 1)
END = frozenset({3, 4})


def sequence(prompt: list[int], tokens: list[int], **options: Any) -> Sequence:
    made = Sequence(prompt, SamplingOptions(max_tokens=100, **options))
    made.tokens += tokens
    return made


def random_logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(rows)) * 4


def penalized(logits: torch.Tensor, *sequences: Sequence) -> torch.Tensor:
    changed = logits.clone()
    penalize(changed, list(sequences))
    return changed


def biased(logits: torch.Tensor, *sequences: Sequence) -> torch.Tensor:
    changed = logits.clone()
    add_biases(changed, list(sequences), end_tokens=END)
    return changed


def plain(logits: list[float], of: Sequence) -> list[float]:
    """The three formulas, a token at a time."""
    options, counts, expected = of.options, Counter(of.tokens), []
    for token, logit in enumerate(logits):
        if token in of.prompt or token in counts:
            repetition = options.repetition_penalty
            logit = logit / repetition if logit > 0 else logit * repetition
        logit -= options.frequency_penalty * counts[token]
        logit -= options.presence_penalty * (counts[token] > 0)
        expected.append(logit)
    return expected


sequences_with_penalties = st.builds(
    sequence,
    st.lists(TOKENS, min_size=1, max_size=20),
    st.lists(TOKENS, max_size=30),
    frequency_penalty=st.sampled_from([0.0, -2.0, 0.3, 2.0]),
    presence_penalty=st.sampled_from([0.0, -1.5, 0.7, 2.0]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3, 2.0]),
)


@settings(deadline=None)
@given(st.lists(sequences_with_penalties, min_size=1, max_size=6))
def test_penalties_are_the_formulas_whoever_stands_beside(sequences: list[Sequence]) -> None:
    logits = random_logits(len(sequences))

    changed = penalized(logits, *sequences)

    expected = [plain(row, each) for row, each in zip(logits.tolist(), sequences, strict=True)]
    assert torch.allclose(changed, torch.tensor(expected), atol=1e-5)


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    prompt, answer = [1, 2, 2, 30], [5, 5, 2]
    logits = random_logits(1)
    processor: Any = RepetitionPenaltyLogitsProcessor(1.7)

    changed = penalized(logits, sequence(prompt, answer, repetition_penalty=1.7))

    assert torch.allclose(changed, processor(torch.tensor([prompt + answer]), logits.clone()))


def test_counts_follow_the_answer_as_it_grows() -> None:
    growing = sequence([1], [], frequency_penalty=1.0, repetition_penalty=1.1)
    for token in [7, 7, 8, 7]:
        growing.tokens.append(token)
        logits = random_logits(1)

        changed = penalized(logits, growing)

        assert torch.allclose(changed[0], torch.tensor(plain(logits[0].tolist(), growing)))
    counts = growing.counts()
    assert dict(zip(counts.tokens, counts.numbers, strict=True)) == {1: 0, 7: 3, 8: 1}


def test_rows_that_ask_for_nothing_are_not_touched() -> None:
    logits = random_logits(3)
    asking = sequence([1], [2], frequency_penalty=2.0, logit_bias={9: 50.0})

    changed = biased(penalized(logits, sequence([1], [2]), asking, sequence([1], [2])))

    assert torch.equal(changed[[0, 2]], logits[[0, 2]])
    assert not torch.equal(changed[1], logits[1])


def test_a_bias_is_added_after_the_penalties() -> None:
    logits = random_logits(2)
    asking = sequence([1], [2], repetition_penalty=2.0, logit_bias={2: -100.0, 5: 3.5, 1: 0.25})

    changed = biased(penalized(logits, sequence([1], []), asking), sequence([1], []), asking)

    expected = penalized(logits, sequence([1], []), asking)
    expected[1] += torch.zeros(VOCABULARY).index_put(
        (torch.tensor([2, 5, 1]),), torch.tensor([-100.0, 3.5, 0.25])
    )
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(("answer", "masked"), [(0, True), (2, True), (3, False), (9, False)])
def test_no_end_or_stop_token_before_min_tokens(answer: int, masked: bool) -> None:
    logits = random_logits(2)
    waiting = sequence([1], [6] * answer, min_tokens=3, stop_tokens=frozenset({8}))

    changed = biased(logits, sequence([1], []), waiting)

    gone = {token for token in range(VOCABULARY) if changed[1, token] < -1e8}
    assert gone == ({3, 4, 8} if masked else set())
    assert torch.equal(changed[0], logits[0])
