"""Settings of the service, declared once."""

from __future__ import annotations

from pydantic import Field

from likely.options import Options

MB = 1_000_000  # bytes


class Settings(Options):
    """Limits and defaults of the service."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Share of known images that may be called unknown, unless asked."
    )
    max_batch: int = Field(64, ge=1, le=4096, description="Images that go through a model together.")
    batch_timeout: float = Field(0.005, ge=0, le=1, description="Seconds that an image waits for others to come along.")
    max_queue: int = Field(256, ge=1, description="Images that may wait; who comes later is told when to come again.")
    max_images: int = Field(64, ge=1, description="Images of one request.")
    max_megabytes: float = Field(10.0, gt=0, description="Size of one image.")
    max_request_megabytes: float = Field(100.0, gt=0, description="Size of one request.")
    max_pixels: int = Field(50_000_000, ge=1, description="Height times width of one image.")
    decode_workers: int = Field(1, ge=1, le=64, description="Processes that decode images.")
    decode_timeout: float = Field(10.0, gt=0, description="Time that decoding one image may take.")
    decode_memory_mb: int = Field(1024, ge=64, description="Memory that decoding one image may take.")
    rate_limit: float = Field(1000.0, gt=0, description="Images a second of one key, over ten seconds.")
    login_rate_limit: float = Field(1.0, gt=0, description="Log-ins a second from one address, over ten seconds.")
    retention_days: float | None = Field(
        None,
        gt=0,
        description="Forget answers that are older and that nobody labeled, with their images, hour by hour.",
    )
    session_hours: float = Field(12.0, gt=0, description="How long a browser stays logged in.")

    @property
    def max_request_bytes(self) -> int:
        """Maximum size of a request in bytes."""
        return int(self.max_request_megabytes * MB)

    @property
    def max_bytes(self) -> int:
        """Maximum size of an image in bytes."""
        return int(self.max_megabytes * MB)
