"""`Content-Encoding` of what clients send: decompressed as it comes in, a little at a time."""

import zlib
from collections.abc import AsyncIterator

from batch_api.errors import BadRequest, UnsupportedMediaType

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024


def decoded(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Raises UnsupportedMediaType; and BadRequest, as it is read."""
    match encoding.strip().lower():
        case "" | "identity":
            return chunks
        case "gzip" | "x-gzip":
            return _gunzipped(chunks)
    raise UnsupportedMediaType(
        "The content encoding must be gzip, or none.", headers={"accept-encoding": "gzip"}
    )


async def _gunzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of a bounded size, however much a chunk grows; several members make one body."""
    inflating = zlib.decompressobj(_GZIP)
    async for chunk in chunks:
        has_more = False
        while chunk or has_more:
            if inflating.eof:
                inflating = zlib.decompressobj(_GZIP)
            piece = _inflate(inflating, chunk)
            has_more = len(piece) == _PIECE_BYTES and not inflating.eof
            chunk = inflating.unconsumed_tail or inflating.unused_data
            yield piece
    if not inflating.eof:
        raise BadRequest("The body ends before its gzip stream does.")


def _inflate(inflating: "zlib._Decompress", chunk: bytes) -> bytes:
    try:
        return inflating.decompress(chunk, _PIECE_BYTES)
    except zlib.error as error:
        raise BadRequest(f"The body is not what gzip writes: {error}.") from error
