"""What two deployments may want different. Built once, in `commands/`, and passed on."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

DEMO_MODEL = Path(__file__).parent / "demo_model"
DEMO_MODEL_NAME = "demo"

MIB = 1024 * 1024

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")]


class Settings(BaseSettings):
    """Read from the environment as `BATCH_API_<NAME>`; the command line wins over it."""

    model_config = SettingsConfigDict(env_prefix="BATCH_API_", frozen=True, extra="forbid")

    data_dir: Path = Path("batch-api-data")
    host: str = "127.0.0.1"
    port: int = Field(5000, ge=0, le=65535)
    log_level: str = "info"

    model: str = Field(str(DEMO_MODEL), description="for the workers that `serve` starts")
    upstream: tuple[Url, ...] = Field((), description="base URLs; none = start own workers")

    max_file_bytes: int = Field(512 * MIB, ge=1, description="bytes of one uploaded file")
    max_batch_file_bytes: int = Field(200 * MIB, ge=1, description="bytes of a batch's input")
    max_batch_lines: int = Field(50_000, ge=1, description="requests in one batch")
    max_line_bytes: int = Field(16 * MIB, ge=1, description="bytes of one line of a batch's input")
    max_body_bytes: int = Field(16 * MIB, ge=1, description="bytes of a JSON body")

    max_in_flight: int = Field(128, ge=1, description="requests at the upstreams at once")
    request_timeout_seconds: float = Field(600, gt=0, description="one attempt at one request")
    max_attempts: int = Field(3, ge=1, description="tries at a request that fails for its own sake")
    lease_seconds: float = Field(60, gt=0)
    cancel_grace_seconds: float = Field(600, ge=0, description="for what is in flight at a cancel")
    shutdown_grace_seconds: float = Field(30, ge=0, description="for what is in flight at SIGTERM")
