"""How many sequences of which length fit into the cache's memory."""

from typing import Any

from batch_api.engine.errors import ModelNotLoadable

_SHORTEST_DEFAULT, _LONGEST_DEFAULT = 2048, 8192  # positions, where no length is asked for
_ENOUGH = 16  # sequences: a longer default may cost those beyond it, which add little speed


def fit(
    config: Any, position_bytes: int, *, free: int, max_sequences: int, max_length: int | None
) -> tuple[int, int]:
    """Sequences, and positions of each; `free`: bytes. Raises ModelNotLoadable."""
    affordable = free // (position_bytes * min(max_sequences, _ENOUGH))
    wanted = max_length or max(_SHORTEST_DEFAULT, min(affordable, _LONGEST_DEFAULT))
    positions = min(wanted, _known_length(config) or wanted)
    one = position_bytes * positions
    if free < one:
        raise ModelNotLoadable(
            f"one sequence of {positions} positions needs {one:,} bytes of cache; {free:,} are free"
        )
    return min(max_sequences, free // one), positions


def _known_length(config: Any) -> int | None:
    """What the model was trained for, if it says so."""
    text = config.get_text_config()
    known: int | None = getattr(text, "max_position_embeddings", None)
    rope: Any = getattr(text, "rope_parameters", None) or {}
    if known and rope.get("rope_type") == "longrope":  # beyond it, angles change with neighbours
        return min(known, int(rope["original_max_position_embeddings"]))
    return known
