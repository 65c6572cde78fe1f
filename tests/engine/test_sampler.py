from typing import Any

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from batch_api.engine.sampler import sample
from batch_api.engine.sequence import SamplingOptions, Sequence
from batch_api.engine.truncation import truncate


def sampled(temperature: float, top_p: float = 1.0, seed: int | None = 0) -> Sequence:
    options = SamplingOptions(max_tokens=1, temperature=temperature, top_p=top_p, seed=seed)
    return Sequence([1], options)


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])

    assert sample(logits, [sampled(0), sampled(0)]) == [1, 0]


def test_draws_follow_the_distribution() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2])
    sequences = [sampled(1.0, seed=seed) for seed in range(4000)]

    tokens = sample(weights.log().expand(4000, 3), sequences)

    shares = torch.bincount(torch.tensor(tokens), minlength=3) / 4000
    assert torch.allclose(shares, weights, atol=0.03)


def test_temperature_sharpens_and_flattens() -> None:
    weights = torch.tensor([0.8, 0.2])
    for temperature, share in ((0.5, 0.941), (2.0, 0.667)):
        sequences = [sampled(temperature, seed=seed) for seed in range(4000)]

        tokens = sample(weights.log().expand(4000, 2), sequences)

        assert abs(tokens.count(0) / 4000 - share) < 0.03


def test_a_tiny_temperature_is_nearly_greedy_and_finite() -> None:
    logits = torch.tensor([[1000.0, 999.0, -1000.0]])

    assert sample(logits, [sampled(1e-9)]) == [0]


def test_top_p_keeps_the_smallest_set_with_that_share() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    for top_p, kept in ((0.4, {0}), (0.41, {0, 1}), (0.69, {0, 1}), (0.75, {0, 1, 2})):
        sequences = [sampled(1.0, top_p, seed) for seed in range(500)]

        assert set(sample(logits.expand(500, 4), sequences)) == kept


@pytest.mark.parametrize("top_p", [1e-9, 1e-60, 5e-324])
def test_a_tiny_top_p_keeps_the_likeliest(top_p: float) -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()

    assert set(sample(logits.expand(50, 4), [sampled(1.0, top_p, n) for n in range(50)])) == {1}


def test_top_p_over_a_flat_distribution_keeps_more_than_the_likely_few() -> None:
    logits = torch.zeros(200, 5000)

    tokens = sample(logits, [sampled(1.0, 0.9, seed) for seed in range(200)])

    assert max(tokens) > 3000


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(3))
    options = [(1.0, 1.0), (0.0, 1.0), (0.7, 0.5), (1.3, 0.9), (0.0, 1.0), (2.0, 0.99)]

    together = sample(logits, [sampled(*each, seed=9) for each in options])

    alone = [
        sample(row, [sampled(*each, seed=9)])
        for row, each in zip(logits.unsqueeze(1), options, strict=True)
    ]
    assert [together] == [[token for (token,) in alone]]


def test_no_seed_means_another_draw_each_time() -> None:
    logits = torch.zeros(50, 1000)

    assert len(set(sample(logits, [sampled(1.0, seed=None) for _ in range(50)]))) > 25


def test_a_seed_and_its_negative_draw_differently() -> None:
    one, other, again = (sampled(1.0, seed=seed) for seed in (5, -5, 5))
    draws = [each.draw() for each in (one, other, again)]

    assert draws[0] == draws[2] != draws[1]


def limited(seed: int, **options: Any) -> Sequence:
    return Sequence([1], SamplingOptions(max_tokens=1, seed=seed, **options))


def drawn(weights: list[float], **options: Any) -> set[int]:
    """What comes up in 400 draws."""
    logits = torch.tensor(weights).log().expand(400, len(weights))
    return set(sample(logits, [limited(seed, **options) for seed in range(400)]))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 2}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"min_p": 0.5}, {1, 2}),
        ({"min_p": 0.24}, {0, 1, 2, 3}),
        ({"min_p": 1.0}, {1}),
        ({"top_k": 3, "min_p": 0.7}, {1, 2}),
        ({"top_k": 2, "top_p": 0.57}, {1}),  # of what top_k leaves, the likeliest has 4/7
        ({"top_k": 2, "top_p": 0.58}, {1, 2}),
        ({"min_p": 0.7, "top_p": 0.57}, {1}),
    ],
)
def test_top_k_min_p_and_top_p_keep_the_likeliest(options: dict[str, Any], kept: set[int]) -> None:
    assert drawn([0.1, 0.4, 0.3, 0.2], **options) == kept


def test_truncation_is_that_of_transformers() -> None:
    logits = torch.randn(1, 3000, generator=torch.Generator().manual_seed(1)) * 3
    weights = logits.softmax(dim=-1)
    ids = torch.tensor([[0]])
    for min_p, top_k, top_p in ((0.01, 0, 1.0), (0.0, 40, 1.0), (0.02, 30, 0.8), (0.0, 2000, 0.99)):
        processors: list[Any] = [MinPLogitsWarper(min_p)]
        processors += [TopKLogitsWarper(top_k)] if top_k else []
        processors += [TopPLogitsWarper(top_p)]
        expected = logits
        for processor in processors:
            expected = processor(ids, expected)

        left = truncate(weights, [limited(0, min_p=min_p, top_k=top_k, top_p=top_p)])

        assert torch.equal(left > 0, expected > -torch.inf)


def test_a_row_is_truncated_alike_whoever_stands_beside() -> None:
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(3)).softmax(dim=-1)
    sequences = [
        limited(0, top_k=7),
        limited(0),
        limited(0, min_p=0.2),
        limited(0, top_p=0.999),  # needs the whole order
        limited(0, top_k=2500, top_p=0.9, min_p=0.001),
    ]

    together = truncate(logits, sequences)

    alone = [
        truncate(row, [each]) for row, each in zip(logits.unsqueeze(1), sequences, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_penalties_and_biases_count_for_greedy_answers_too() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0]])
    biased = limited(0, temperature=0, logit_bias={2: 10.0})
    penalized = limited(0, temperature=0, presence_penalty=2.0)
    penalized.tokens.append(0)

    assert sample(logits.clone(), [biased]) == [2]
    assert sample(logits.clone(), [penalized]) == [1]


def test_each_choice_of_a_seed_draws_its_own_numbers() -> None:
    options = SamplingOptions(max_tokens=1, seed=7)
    draws = [Sequence([1], options, choice=choice).draw() for choice in (0, 1, 2, 1)]

    assert len(set(draws)) == 3
    assert draws[1] == draws[3]
    assert draws[0] == Sequence([1], options).draw()
