import pytest
from transformers import LlamaConfig

from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.fitting import fit

MIB = 1024**2


@pytest.mark.parametrize(
    ("known", "free", "fitting"),
    [
        (1024, 10**6, (64, 1024)),  # MiB; at 1 KiB a position
        (4096, 10**6, (64, 4096)),
        (131_072, 10**6, (64, 8192)),
        (131_072, 256, (32, 8192)),
        (131_072, 64, (16, 4096)),
        (131_072, 16, (8, 2048)),
        (131_072, 2, (1, 2048)),
    ],
)
def test_the_default_length_is_what_the_model_knows_and_memory_allows(
    known: int, free: int, fitting: tuple[int, int]
) -> None:
    config = LlamaConfig(max_position_embeddings=known)

    assert fit(config, 1024, free=free * MIB, max_sequences=64, max_length=None) == fitting


def test_few_sequences_are_given_more_length() -> None:
    config = LlamaConfig(max_position_embeddings=131_072)

    assert fit(config, 1024, free=16 * MIB, max_sequences=2, max_length=None) == (2, 8192)


def test_a_length_that_is_asked_for_may_be_longer_and_costs_sequences() -> None:
    config = LlamaConfig(max_position_embeddings=131_072)

    assert fit(config, 1024, free=64 * MIB, max_sequences=64, max_length=32_768) == (2, 32_768)


def test_a_length_that_does_not_fit_once_is_refused() -> None:
    config = LlamaConfig(max_position_embeddings=131_072)

    with pytest.raises(ModelNotLoadable, match="one sequence of 2048 positions"):
        fit(config, 1024, free=MIB, max_sequences=64, max_length=None)
