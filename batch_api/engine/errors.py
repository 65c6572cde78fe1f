"""What the engine refuses, in one clear sentence each."""


class PromptTooLong(ValueError):
    """The prompt and one new token do not fit; a prompt is never truncated."""

    def __init__(self, *, prompt_tokens: int, max_length: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens; with an answer of at least one token"
            f" at most {max_length} fit"
        )
        self.prompt_tokens = prompt_tokens
        self.max_length = max_length


class UnknownToken(ValueError):
    """A prompt or a bias names a token that the model does not have."""

    def __init__(self, token: int, *, vocab_size: int) -> None:
        super().__init__(f"there is no token {token}; the model's are 0 to {vocab_size - 1}")
        self.token = token


class GrammarRefused(ValueError):
    """A schema, pattern or choice that answers can't be held to."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ModelNotLoadable(ValueError):
    """The model is not there, or it computes in a way that the engine does not have."""
