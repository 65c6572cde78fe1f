"""The transformers model, run over packed tokens with our attention and cache."""

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from batch_api.engine.attention import NAME, Attention, attending, attention_function
from batch_api.engine.batcher import Chunk
from batch_api.engine.cache import Cache
from batch_api.engine.linears import packed_bytes
from batch_api.engine.plan import plan

AttentionInterface.register(NAME, attention_function)


class Model:
    """One forward pass a step, through the model's own unmodified `forward`."""

    def __init__(self, network: PreTrainedModel, cache: Cache) -> None:
        self.network = network
        self.cache = cache

    @property
    def vocab_size(self) -> int:
        """Tokens that it can be given and give; padding that no tokenizer knows included."""
        embeddings: Any = self.network.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    @property
    def memory_bytes(self) -> int:
        tensors = [*self.network.parameters(), *self.network.buffers()]
        weights = sum(tensor.nbytes for tensor in tensors) + packed_bytes(self.network)
        return weights + self.cache.memory_bytes

    @torch.inference_mode()
    def forward(self, chunks: list[Chunk]) -> torch.Tensor:
        """Logits of the chunks' scored positions, one after the other: [positions, vocab]."""
        device = self.network.device
        token_ids = [token for chunk in chunks for token in chunk.token_ids]
        attention = plan(chunks, self.cache, device)
        return run(
            self.network,
            attention,
            token_ids=torch.tensor(token_ids, device=device),
            positions=attention.positions,
            keep=torch.tensor(_scored_rows(chunks), dtype=torch.long, device=device),
        )


def run(
    network: PreTrainedModel,
    attention: Attention,
    *,
    token_ids: torch.Tensor,
    positions: torch.Tensor,
    keep: torch.Tensor,
) -> torch.Tensor:
    """token_ids, positions: [tokens]; keep: [rows], indices of tokens → logits: [rows, vocab]."""
    forward: Any = network.forward
    with attending(attention):
        output = forward(
            input_ids=token_ids.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            logits_to_keep=keep,
            use_cache=False,
            return_dict=True,
        )
    logits: torch.Tensor = output.logits
    return logits.squeeze(0)


def _scored_rows(chunks: list[Chunk]) -> list[int]:
    rows: list[int] = []
    end = 0
    for chunk in chunks:
        end += chunk.size
        rows += range(end - chunk.scored, end)
    return rows
