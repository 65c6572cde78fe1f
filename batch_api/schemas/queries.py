"""The simple shapes of a question: a prompt for the system, one of the user, an id to tell by."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_QUERIES = 1000

_Prompt = Annotated[str, Field(min_length=1)]


class Query(BaseModel):
    model_config = ConfigDict(strict=True)

    chat_id: Annotated[str, Field(min_length=1)]
    user_prompt: _Prompt
    system_prompt: str = ""
    model: str | None = None
    """Ours; none: the first that is served."""

    @property
    def messages(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, {"role": "user", "content": self.user_prompt}]


class Queries(BaseModel):
    """Each is judged alone: one that is wrong spoils none of the others."""

    model_config = ConfigDict(strict=True)

    queries: list[Any] = Field(min_length=1, max_length=MAX_QUERIES)


class QueryAnswer(BaseModel):
    chat_id: str
    response: str


class QueryError(BaseModel):
    chat_id: str
    error: str


class QueryAnswers(BaseModel):
    """In the order of the queries."""

    partial_success: bool
    """Whether some were not answered."""
    responses: list[QueryAnswer | QueryError]
