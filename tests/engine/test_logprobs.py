import math

import torch

from batch_api.engine.logprobs import token_logprobs


def test_logprobs_are_those_of_the_whole_distribution() -> None:
    logits = torch.randn(100, 300, generator=torch.Generator().manual_seed(0)) * 5
    expected = logits.log_softmax(dim=-1)
    tokens = [(row * 7) % 300 for row in range(100)]

    scores = list(token_logprobs(logits, tokens, [row % 4 for row in range(100)]))

    for row, score in enumerate(scores):
        assert score.token == tokens[row]
        assert math.isclose(score.logprob, expected[row, tokens[row]], abs_tol=1e-4)
        ranked = expected[row].sort(descending=True)
        assert [token for token, _ in score.top] == ranked.indices[: row % 4].tolist()
        assert torch.allclose(
            torch.tensor([each for _, each in score.top]), ranked.values[: row % 4], atol=1e-4
        )


def test_an_impossible_token_has_openais_number_for_it() -> None:
    logits = torch.tensor([[0.0, -math.inf, -1e9]])

    scores = [next(token_logprobs(logits, [token], [3])) for token in range(3)]

    assert [score.logprob for score in scores] == [0.0, -9999.0, -9999.0]
    assert scores[0].top == ((0, 0.0), (2, -9999.0), (1, -9999.0))


def test_more_alternatives_than_there_are_tokens_are_all_of_them() -> None:
    (score,) = token_logprobs(torch.zeros(1, 3), [1], [50])

    assert sorted(token for token, _ in score.top) == [0, 1, 2]


def test_alternatives_among_equals_do_not_depend_on_who_asks_beside() -> None:
    logits = torch.zeros(2, 500)

    alone = next(token_logprobs(logits[:1], [0], [2]))
    beside = next(token_logprobs(logits, [0, 0], [2, 20]))

    assert alone == beside
