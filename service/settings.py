"""What the service may be told: where it listens, what it keeps, and how much it lets through."""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import VoiceprintError

DEFAULT_FOLDER = "audio_db"
"""Where infer_recognition.py keeps its voices, and the default database beside them."""

DEFAULT_DATABASE = "sqlite:///audio_db/voiceprints.sqlite3"

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
"""Addresses that only programs of the same machine reach."""


class ServiceError(VoiceprintError):
    """The service cannot start as it is told to."""


@dataclass(frozen=True)
class Settings:
    """Options of the service; each limit has its row in docs/service.md.

    Attributes:
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        token: A token of all rights, or None.
        token_file: File of `name:sha256` lines, or None.
        keep_audio: Whether recordings are kept beside their embeddings.
        max_upload_bytes: Largest body of a request.
        max_bodies_bytes: Largest sum of the bodies of simultaneous requests.
        max_duration_s: Longest recording, in seconds.
        max_recordings: Most recordings of a speaker.
        max_candidates: Most names that an identification may be narrowed to.
        rate_limit: Requests a minute of a token, or of an address without one; 0 for no limit.
        classic_rate_limit: The same for the classic routes, where one token serves many devices.
        classic_threshold: Lowest score with which the classic routes answer a speaker; None for
            the model's threshold.
        lockout_failures: Failed verifications after which a speaker is locked; 0 for never.
        lockout_s: Seconds for which failures count and a lock lasts.
        queue_size: Recordings that may wait for the encoder.
        num_threads: Recordings that are encoded at a time, None for one a core.
        header_timeout_s: Seconds for a request line and its headers to arrive.
        body_timeout_s: Seconds for a body to arrive.
        stop_timeout_s: Seconds that accepted requests are given when the service stops.
        cors_origin: The one foreign origin whose pages may call the service, or None.
        json_logs: Whether logs are lines of JSON.
    """

    host: str = "127.0.0.1"
    port: int = 8005
    token: str | None = None
    token_file: Path | None = None
    keep_audio: bool = False
    max_upload_bytes: int = 20_000_000
    max_bodies_bytes: int = 400_000_000
    max_duration_s: float = 60.0
    max_recordings: int = 20
    max_candidates: int = 500
    rate_limit: int = 600
    classic_rate_limit: int = 6000
    classic_threshold: float | None = None
    lockout_failures: int = 5
    lockout_s: float = 300.0
    queue_size: int = 64
    num_threads: int | None = None
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    stop_timeout_s: float = 30.0
    cors_origin: str | None = None
    json_logs: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach the service."""
        return self.host in LOOPBACK
