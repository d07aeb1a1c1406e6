"""Settings of the service, declared once."""

from __future__ import annotations

from pydantic import Field

from likely.options import Options

MB = 1_000_000  # bytes


class Settings(Options):
    """Limits and defaults of the service."""

    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fraction of in-distribution images that may be rejected as unknown, unless a request says otherwise.",
    )
    max_batch: int = Field(64, ge=1, le=4096, description="Maximum images in a batch.")
    batch_timeout: float = Field(
        0.005, ge=0, le=1, description="Seconds that an image waits for others to join its batch."
    )
    max_queue: int = Field(256, ge=1, description="Maximum queued images; further requests get 503 with Retry-After.")
    max_images: int = Field(64, ge=1, description="Maximum images in a request.")
    max_megabytes: float = Field(10.0, gt=0, description="Maximum size of an image, in MB.")
    max_request_megabytes: float = Field(100.0, gt=0, description="Maximum size of a request, in MB.")
    max_pixels: int = Field(50_000_000, ge=1, description="Maximum height times width of an image.")
    decode_workers: int = Field(1, ge=1, le=64, description="Decoder processes.")
    decode_timeout: float = Field(10.0, gt=0, description="Maximum seconds to decode an image.")
    decode_memory_mb: int = Field(1024, ge=64, description="Maximum memory of a decoder process, in MB.")
    rate_limit: float = Field(1000.0, gt=0, description="Images per second for each key, averaged over ten seconds.")
    login_rate_limit: float = Field(
        1.0, gt=0, description="Logins per second from each address, averaged over ten seconds."
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        description="Delete unlabeled predictions older than this, with their images; checked every hour.",
    )
    session_hours: float = Field(12.0, gt=0, description="Hours until a browser session expires.")

    @property
    def max_request_bytes(self) -> int:
        """Maximum size of a request in bytes."""
        return int(self.max_request_megabytes * MB)

    @property
    def max_bytes(self) -> int:
        """Maximum size of an image in bytes."""
        return int(self.max_megabytes * MB)
