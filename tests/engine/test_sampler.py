import pytest
import torch

from batch_api.engine.sampler import sample
from batch_api.engine.sequence import SamplingOptions, Sequence


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
