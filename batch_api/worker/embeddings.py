"""`POST /v1/embeddings`."""

import asyncio
import math
from base64 import b64encode
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Response

from batch_api.engine.sequence import Priority
from batch_api.engine.texts import Texts
from batch_api.errors import APIError, BadRequest
from batch_api.schemas.embeddings import (
    Embedding,
    Embeddings,
    EmbeddingsRequest,
    EmbeddingsUsage,
)
from batch_api.worker.deps import EmbedderHere, EmbeddingsBody, RequestPriority, WaitingClient
from batch_api.worker.prompt import LONG_CHARACTERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batch_api.engine.embedder import Embedded, Embedder

router = APIRouter()

_MANY_NUMBERS = 10_000  # about a millisecond of encoding: more would hold up the event loop

_encode = msgspec.json.Encoder().encode


@router.post("/v1/embeddings")
async def create_embeddings(
    asked: EmbeddingsBody, priority: RequestPriority, served: EmbedderHere, client: WaitingClient
) -> Response:
    served.check_model(asked.model)
    with served.engine.places(1, param="input", priority=priority) as embedder:
        texts = await client.wait_for(_texts(asked, embedder, priority))
        with served.engine.answer([texts], whole=True) as answer:
            (embedded,) = await client.wait_for(answer.take())
        body = await client.wait_for(_body(asked, embedded))
    return Response(body, media_type="application/json")


async def _texts(asked: EmbeddingsRequest, embedder: "Embedder", priority: Priority) -> Texts:
    """Raises BadRequest for what this model does not take."""
    _check_dimensions(asked, embedder.dimensions)
    token_ids = await _token_ids(asked, embedder)
    for index, ids in enumerate(token_ids):
        _check(ids, asked.place(index), embedder)
    return Texts(token_ids, dimensions=asked.dimensions, priority=priority)


async def _token_ids(asked: EmbeddingsRequest, embedder: "Embedder") -> list[list[int]]:
    """Ids that the client made itself are fed as they are."""
    texts = asked.texts
    if not isinstance(texts[0], str):
        return texts
    if sum(map(len, texts)) > LONG_CHARACTERS:
        return await asyncio.to_thread(embedder.encode, texts)
    return embedder.encode(texts)


def _check_dimensions(asked: EmbeddingsRequest, most: int) -> None:
    if asked.dimensions is not None and asked.dimensions > most:
        raise BadRequest(
            f"Invalid 'dimensions': this model's vectors have {most} dimensions, "
            f"but {str(asked.dimensions)[:20]} are asked for.",
            param="dimensions",
            code="integer_above_max_value",
        )


def _check(ids: list[int], place: str, embedder: "Embedder") -> None:
    if len(ids) > embedder.max_length:
        raise BadRequest(
            f"This model's maximum context length is {embedder.max_length} tokens,"
            f" but '{place}' has {len(ids)}.",
            param=place,
            code="context_length_exceeded",
        )
    if not ids:
        raise BadRequest(f"'{place}' makes no tokens.", param=place, code="invalid_value")
    if max(ids) >= embedder.vocabulary:
        raise BadRequest(
            f"'{place}' has a token that this model does not know: it knows those below"
            f" {embedder.vocabulary}.",
            param=place,
            code="invalid_value",
        )


async def _body(asked: EmbeddingsRequest, embedded: "Embedded") -> bytes:
    if embedded.vectors.size > _MANY_NUMBERS:
        return await asyncio.to_thread(_whole, asked, embedded)
    return _whole(asked, embedded)


def _whole(asked: EmbeddingsRequest, embedded: "Embedded") -> bytes:
    if not math.isfinite(embedded.vectors.sum()):  # JSON has no word for infinity
        raise APIError("The model's vectors are not finite; this precision may be too small.")
    encoded = _as_base64 if asked.encoding_format == "base64" else _as_floats
    tokens = sum(row.length for row in embedded.sequence.rows)
    return _encode(
        Embeddings(
            data=[Embedding(index, encoded(row)) for index, row in enumerate(embedded.vectors)],
            model=asked.model,
            usage=EmbeddingsUsage(tokens, tokens),
        )
    )


def _as_base64(vector: "NDArray[np.float32]") -> str:
    return b64encode(vector.astype("<f4").tobytes()).decode()


def _as_floats(vector: "NDArray[np.float32]") -> list[float]:
    floats: list[float] = vector.tolist()
    return floats
