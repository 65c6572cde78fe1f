"""What two deployments may want different. Built once, by a command, and passed on."""

from base64 import b64decode
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

DEMO_MODEL = Path(__file__).parent / "demo_model"
DEMO_MODEL_NAME = "demo"

MIB = 1024 * 1024

MIN_LENGTH = 16
"""Of a sequence: what a model is tried with when it is loaded needs nearly so much."""


CLIENT_TIMEOUT_SECONDS = 75.0
"""Longer than load balancers leave a connection idle, so that it is theirs to close."""


_ADDRESS = r"([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?"
WEBHOOK_HOST = rf"^{_ADDRESS}$"
WEBHOOK_URL = rf"^https?://{_ADDRESS}([/?][!$-\[\]-~]*)?$"
"""Stricter than URLs are: all that read one must see the same host in it."""


def place_of_model(model: str) -> str:
    """The bundled one may be called by its name."""
    is_bundled = model == DEMO_MODEL_NAME and not Path(model).is_dir()
    return str(DEMO_MODEL) if is_bundled else model


def signing_secrets(secrets: SecretStr) -> SecretStr | None:
    """Empty: none. Raises ValueError, without the secrets, for what SDKs would read otherwise."""
    told = secrets.get_secret_value().split()
    if not all(map(_is_signing_secret, told)):
        raise ValueError("each must be one that `batch-api webhooks secret` prints")
    return secrets if told else None


def _is_signing_secret(told: str) -> bool:
    try:
        key = b64decode(told.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return told.startswith("whsec_") and 24 <= len(key) <= 64


Model = Annotated[str, AfterValidator(place_of_model)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")]
Level = Literal["debug", "info", "warning", "error"]
Dtype = Literal["float32", "bfloat16", "float16"]
Task = Literal["generate", "embed"]
AtLeastOne = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Host = Annotated[str, StringConstraints(to_lower=True, pattern=r"^(\*|[^\s/:]+|[0-9a-fA-F:]+)$")]
Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[^/\s]+)$")]
Window = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[hd]$")]
Days = Annotated[float, Field(gt=0)]
WebhookUrl = Annotated[str, StringConstraints(max_length=2048, pattern=WEBHOOK_URL)]
WebhookHost = Annotated[str, StringConstraints(to_lower=True, pattern=WEBHOOK_HOST)]
GraceSeconds = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """Read from the environment as `BATCH_API_<NAME>`; the command line wins over it."""

    model_config = SettingsConfigDict(env_prefix="BATCH_API_", frozen=True, extra="forbid")

    data_dir: Path = Path("batch-api-data")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 5000
    api_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Of the default tenant, besides the keys in the database."""
    allow_anyone: bool = False
    """Listen beyond this machine although there is no key."""
    log_level: Level = "info"
    client_timeout_seconds: Seconds = CLIENT_TIMEOUT_SECONDS
    """For a client whose turn it is: to ask, to send more of a body, to take more of an answer."""
    allowed_hosts: tuple[Host, ...] = ()
    """Names that requests may call this server by; where it listens for other machines too, none
    means any."""
    allowed_origins: tuple[Origin, ...] = ()
    """Of web pages that may use this server."""
    allowed_media_hosts: tuple[Host, ...] = ()
    """To which links in requests may lead that are passed on to upstreams."""

    model: Model = str(DEMO_MODEL)
    """For the workers that this process starts, as are the next four; None: as they choose."""
    task: Task = "generate"
    max_length: Annotated[int, Field(ge=MIN_LENGTH)] | None = None
    """Tokens of a prompt and its answer together."""
    max_sequences: AtLeastOne | None = None
    """Sequences that run at once."""
    dtype: Dtype | None = None

    upstream: tuple[Url, ...] = ()
    """Base URLs; none: start own workers."""
    workers: tuple[Url, ...] = ()
    """Where the dashboard looks how they are, if something stands in front of them; none: at the
    upstreams."""

    max_file_bytes: AtLeastOne = 512 * MIB
    max_batch_file_bytes: AtLeastOne = 200 * MIB
    max_upload_bytes: AtLeastOne = 8 * 1024 * MIB
    """Of a file that comes in parts."""
    max_part_bytes: AtLeastOne = 64 * MIB
    max_batch_lines: AtLeastOne = 50_000
    max_line_bytes: AtLeastOne = 16 * MIB
    max_body_bytes: AtLeastOne = 16 * MIB
    max_answer_bytes: AtLeastOne = 64 * MIB
    """Of an upstream, decompressed; a stream may have more, but no line of it."""

    min_free_bytes: Annotated[int, Field(ge=0)] | None = None
    """Of the disk, for answers that are on their way; None: a twentieth of it, at most 1 GiB."""

    # Of each tenant.
    max_stored_bytes: AtLeastOne = 1024 * 1024 * MIB
    max_uploads_at_once: AtLeastOne = 100
    max_active_batches: AtLeastOne = 10_000
    max_queued_lines: AtLeastOne = 10_000_000
    """That wait for their answer, of all its batches."""
    max_requests_per_minute: AtLeastOne = 100_000

    completion_windows: Annotated[tuple[Window, ...], Field(min_length=1)] = ("24h",)
    """That a batch may ask for: hours or days."""
    allow_mixed_models: bool = True
    """Several models in one batch, which OpenAI forbids."""

    max_in_flight: Annotated[int, Field(ge=1, le=4096)] = 128
    """Requests of batches at the upstreams at once."""
    request_timeout_seconds: Seconds = 600
    """For one attempt at one request."""
    max_attempts: AtLeastOne = 3
    """At a request that fails for its own sake."""
    lease_seconds: Seconds = 60
    cancel_grace_seconds: GraceSeconds = 600
    """For what is in flight when a batch is cancelled."""
    shutdown_grace_seconds: GraceSeconds = 30
    """For what is in flight at SIGTERM."""

    keep_files_days: Days | None = None
    """Uploaded ones; None, here and below: as long as they themselves say, or for ever."""
    keep_results_days: Days | None = None
    keep_batches_days: Days | None = None
    """After their end."""

    webhook_urls: tuple[WebhookUrl, ...] = ()
    """That are told of the end of every batch."""
    webhook_hosts: tuple[WebhookHost, ...] = ()
    """To which batches may have their own end told: `host` for the usual port, or `host:port`."""
    webhook_secret: Annotated[SecretStr, AfterValidator(signing_secrets)] | None = None
    """That webhooks are signed with: one, or several with spaces between them, the newest first."""

    failpoints: str = ""
    """Only tests set it: where to die or to sleep."""


def served_name(model: str) -> str:
    """What requests call a model: the bundled one `demo`, others by their folder or hub name."""
    if model == str(DEMO_MODEL):
        return DEMO_MODEL_NAME
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def window_seconds(window: str) -> int:
    """Of a Window, or of another whole number of minutes, hours, days or weeks, such as `90m`."""
    return int(window[:-1]) * {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[window[-1]]
