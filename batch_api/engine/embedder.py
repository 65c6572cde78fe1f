"""The embedder: texts in, vectors out, a pass at a time. It is driven as the engine is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from batch_api.engine.loading import choose_device, choose_dtype, load_network, load_tokenizer
from batch_api.engine.packer import Packer
from batch_api.engine.pooling import pool
from batch_api.engine.probe import check_neighbours
from batch_api.engine.recipe import Recipe, read_recipe
from batch_api.engine.texts import Row, Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST_DEFAULT = 8192  # tokens of a text, where no length is asked for; OpenAI's own limit
_UNTOLD = 1_000_000  # tokenizers that know no length tell a huge one
_TOKENS = {"cpu": 1024}  # of a pass: more is slower there, and an interactive text waits longer
_TOKENS_ELSEWHERE = 16384


@dataclass(frozen=True, slots=True)
class Embedded:
    """All of a request's vectors, each of length 1: [texts, dimensions]."""

    sequence: Texts
    vectors: "NDArray[np.float32]"
    is_last: ClassVar[bool] = True
    is_news: ClassVar[bool] = True
    is_broken: ClassVar[bool] = False


class Embedder:
    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        *,
        max_sequences: int,
        max_length: int | None,
    ) -> None:
        self.max_sequences = max_sequences
        self.max_length = _max_length(network, tokenizer, recipe, max_length)
        embeddings: Any = network.get_input_embeddings()
        self.vocabulary: int = embeddings.num_embeddings
        self.device = str(network.device)
        self.dtype = str(network.dtype).removeprefix("torch.")
        self._network = network
        self._network.config.use_cache = False
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._padding = network.config.get_text_config().pad_token_id or 0
        tokens = _TOKENS.get(network.device.type, _TOKENS_ELSEWHERE)
        self._packer = Packer(max_rows=max_sequences, max_tokens=tokens)
        self._vectors: dict[Texts, dict[int, torch.Tensor]] = {}
        self.running = 0
        """Requests with texts in the pass under way."""
        check_neighbours(network, self._pooled)
        self.dimensions = self._pooled([[0]]).shape[1]
        self.encode(["settled"])

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_sequences: int = 256,
        max_length: int | None = None,
    ) -> "Embedder":
        """A folder or a hub name. `max_sequences`: texts in a pass. `max_length`: tokens of a text,
        up to what the model knows (default: that, or 8,192). Raises ModelNotLoadable.
        """
        place = choose_device(device)
        recipe = read_recipe(model)
        network = load_network(AutoModel, model, device=place, dtype=choose_dtype(dtype, place))
        return cls(
            network,
            load_tokenizer(model),
            recipe,
            max_sequences=max_sequences,
            max_length=max_length,
        )

    @property
    def memory_bytes(self) -> int:
        tensors = [*self._network.parameters(), *self._network.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def has_work(self) -> bool:
        return self._packer.has_work

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each, never cut. In any thread: the first call, when the model is
        loaded, takes out of the tokenizer what it was saved with, the later ones only read it.
        """
        if self._recipe.lowercase:
            texts = [text.lower() for text in texts]
        encode: Any = self._tokenizer
        ids: list[list[int]] = encode(
            texts,
            truncation=False,
            padding=False,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def add(self, texts: Texts) -> None:
        """Queue them; their ids are known to be in the vocabulary, and to fit."""
        self._vectors[texts] = {}
        self._packer.add(texts)

    def cancel(self, texts: Texts) -> None:
        """At any time, any number of times."""
        self._packer.remove(texts)
        self._vectors.pop(texts, None)

    def step(self) -> list[Embedded]:
        """One forward pass: what it completes."""
        rows = self._packer.next()
        if not rows:
            return []
        requests = dict.fromkeys(row.texts for row in rows)
        self.running = len(requests)
        self._keep(rows, self._pooled([row.token_ids for row in rows]))
        self.running = 0
        return [self._finish(texts) for texts in requests if self._is_done(texts)]

    def _keep(self, rows: list[Row], pooled: torch.Tensor) -> None:
        for row, vector in zip(rows, pooled, strict=True):
            self._vectors[row.texts][row.index] = vector

    def _is_done(self, texts: Texts) -> bool:
        return len(self._vectors[texts]) == len(texts.rows)

    def _finish(self, texts: Texts) -> Embedded:
        vectors = self._vectors.pop(texts)
        inputs = torch.stack([vectors[row.index] for row in texts.rows])
        return Embedded(texts, normalize(inputs[:, : texts.dimensions]).numpy())

    @torch.inference_mode()
    def _pooled(self, token_ids: list[list[int]]) -> torch.Tensor:
        """[texts, dimensions], in fp32 and on the CPU."""
        ids = pad_sequence(
            [torch.tensor(each) for each in token_ids],
            batch_first=True,
            padding_value=self._padding,
        )
        lengths = torch.tensor([[len(each)] for each in token_ids])
        mask = (torch.arange(ids.shape[1]) < lengths).long()
        device = self._network.device
        forward: Any = self._network
        output = forward(input_ids=ids.to(device), attention_mask=mask.to(device))
        hidden: torch.Tensor = output.last_hidden_state
        return pool(hidden.float(), mask.to(device), self._recipe.poolings).cpu()


def _max_length(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    asked: int | None,
) -> int:
    """The least of what the network, its tokenizer and its recipe know, and of what is asked."""
    limits = [
        asked or _LONGEST_DEFAULT,
        recipe.max_length,
        tokenizer.model_max_length if tokenizer.model_max_length < _UNTOLD else None,
        _positions(network),
    ]
    return min(limit for limit in limits if limit is not None)


def _positions(network: PreTrainedModel) -> int | None:
    """RoBERTa and its kin begin to count after the padding's own position."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            padding = -1 if module.padding_idx is None else module.padding_idx
            return module.num_embeddings - padding - 1
    known: int | None = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return known
