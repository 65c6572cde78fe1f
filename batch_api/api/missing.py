"""The errors for ids that are not, or no longer, known. The same for unknown and for foreign."""

from batch_api.errors import BadRequest, NotFound

_SHOWN_CHARACTERS = 200


def no_such_file(id: str, *, param: str = "id") -> NotFound:
    return NotFound(f"No such File object: {_shown(id)}", param=param)


def no_such_upload(id: str) -> NotFound:
    return NotFound(f"No such Upload object: {_shown(id)}", param="upload_id")


def no_such_batch(id: str) -> NotFound:
    return NotFound(f"No batch found with id '{_shown(id)}'.", code="batch_not_found")


def no_such_model(id: str) -> NotFound:
    return NotFound(
        f"The model '{_shown(id)}' does not exist.", param="model", code="model_not_found"
    )


def no_such_cursor(id: str | None) -> BadRequest:
    """Never page one again: a client would go round for ever."""
    return BadRequest(
        f"Invalid value for 'after': there is no '{_shown(id or '')}' to go on after.",
        param="after",
        code="invalid_value",
    )


def _shown(id: str) -> str:
    return id[:_SHOWN_CHARACTERS]
