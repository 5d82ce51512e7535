"""What the service may be told: where it listens, what it keeps, and how much it lets through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from utils.errors import VoiceprintError
from utils.settings import option

DEFAULT_FOLDER = "audio_db"
"""Where infer_recognition.py keeps its voices, and the default database beside them."""

DEFAULT_DATABASE = "sqlite:///audio_db/voiceprints.sqlite3"

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
"""Addresses that only programs of the same machine reach."""


class ServiceError(VoiceprintError):
    """The service cannot start as it is told to."""


@dataclass(frozen=True)
class GroupLimits:
    """What a group may use, None for as much as everybody.

    Attributes:
        max_speakers: Most speakers.
        rate_limit: Requests a minute of all its tokens together.
    """

    max_speakers: int | None = None
    rate_limit: int | None = None


@dataclass(frozen=True)
class Settings:
    """Options of the service; each limit has its row in docs/operating.md.

    Attributes:
        token: A token of all rights, or None.
        max_bodies_bytes: Largest sum of the bodies of simultaneous requests.
        max_candidates: Most names that an identification may be narrowed to.
        groups: Limits of groups, by their names.
    """

    host: str = option("127.0.0.1", help="address to listen on; others need a token")
    port: int = option(8005, "non_negative_int", "port, 0 for any free one")
    model_path: str = option("", help="speaker model (default: the shipped one)", preset=None)
    score_norm: str = option(
        "none", choices=("none", "asnorm"), help="asnorm: by the model's cohort"
    )
    database: str = option(
        DEFAULT_DATABASE,
        preset=None,
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME "
        "(default: $VOICEPRINT_DATABASE, else sqlite:///audio_db/voiceprints.sqlite3)",
    )
    audio_db: str | None = option(
        None,
        help="folder of infer_recognition.py whose speakers are enrolled "
        "(default: audio_db with the default database, else none)",
    )
    keep_audio: bool = option(False, help="keep recordings, not only their embeddings")
    token_file: Path | None = option(  # noqa: RUF009
        None, "path", "file of NAME:SHA256 lines; or set VOICEPRINT_TOKEN"
    )
    max_upload_mb: float = option(20.0, "positive_float", "largest request")
    max_duration_s: float = option(60.0, "positive_float", "longest recording")
    max_recordings: int = option(20, "positive_int", "most recordings of a speaker")
    rate_limit: int = option(600, "non_negative_int", "requests a minute and token")
    classic_rate_limit: int = option(
        6000,
        "non_negative_int",
        "requests a minute and token on /voiceprint, where devices share one",
    )
    classic_threshold: float | None = option(
        None,
        "score",
        "lowest score that names a speaker on /voiceprint (default: the model's threshold)",
    )
    lockout_failures: int = option(5, "non_negative_int", "failures that lock; 0: never")
    lockout_s: float = option(300.0, "non_negative_float", "seconds that a lock lasts")
    queue_size: int = option(64, "positive_int", "recordings that may wait")
    num_threads: int | None = option(
        None, "positive_int", "recordings at a time (default: one a core)"
    )
    header_timeout_s: float = option(10.0, "positive_float", "for headers to arrive")
    body_timeout_s: float = option(30.0, "positive_float", "for an upload to arrive")
    stop_timeout_s: float = option(30.0, "positive_float", "to finish when stopped")
    drain_s: float = option(
        0.0, "non_negative_float", "to go on after SIGTERM, not ready, until balancers know"
    )
    diarization_max_upload_mb: float = option(
        1000.0, "positive_float", "largest request to find who spoke when"
    )
    diarization_max_duration_s: float = option(
        14_400.0, "positive_float", "longest recording to find who spoke when"
    )
    diarization_jobs: int = option(
        1, "positive_int", "such recordings at a time, each in a process of low priority"
    )
    diarization_queue_size: int = option(4, "positive_int", "such recordings that may wait")
    diarization_jobs_per_token: int = option(
        2, "positive_int", "such recordings of one token that run or wait"
    )
    diarization_keep_s: float = option(
        3600.0, "positive_float", "seconds until who spoke when is removed"
    )
    enrolment_speech_s: float = option(
        10.0, "positive_float", "seconds of speech that /v1/enrolments needs"
    )
    enrolment_recordings: int = option(2, "positive_int", "recordings that /v1/enrolments needs")
    enrolment_keep_s: float = option(
        3600.0, "positive_float", "seconds until an unfinished enrolment is removed"
    )
    challenge: Literal["off", "optional", "required"] = option(
        "optional",
        choices=("off", "optional", "required"),
        help="digits to be read: required: no verification without",
    )
    challenge_digits: int = option(6, "positive_int", "digits of a challenge")
    challenge_s: float = option(60.0, "positive_float", "seconds to read and send them")
    replay_check: str = option(
        "challenge",
        choices=("off", "challenge", "all"),
        help="which recordings are remembered, and refused the second time",
    )
    replay_days: float = option(90.0, "positive_float", "days that a recording is remembered")
    replay_uploads: int = option(
        100, "positive_int", "recordings remembered of a speaker, the newest"
    )
    max_streams: int = option(4, "non_negative_int", "live streams at a time; 0: none")
    stream_max_s: float = option(7200.0, "positive_float", "longest live stream")
    stream_idle_s: float = option(30.0, "positive_float", "seconds without sound that end a stream")
    stream_ahead_s: float = option(
        10.0, "positive_float", "seconds of sound that a stream may be ahead of real time"
    )
    json_logs: bool = option(False, help="log lines of JSON")
    cors_origin: str | None = option(
        None, help="origin whose pages may call the service, such as https://a.example"
    )
    strict_audit: bool = option(
        False, help="refuse to identify and verify while the audit log cannot be written"
    )
    audit_days: float = option(
        0.0, "non_negative_float", "days that lines of the audit log are kept; 0: for ever"
    )
    audit_max_lines: int = option(
        0, "non_negative_int", "most lines of the audit log, the newest stay; 0: any number"
    )
    token: str | None = None
    max_bodies_bytes: int = 400_000_000
    max_candidates: int = 500
    groups: Mapping[str, GroupLimits] = field(default_factory=dict)

    def limits_of(self, group: str) -> GroupLimits:
        """Returns the limits of a group."""
        return self.groups.get(group, GroupLimits())

    @property
    def max_upload_bytes(self) -> int:
        """Largest body of a request."""
        return round(self.max_upload_mb * 1e6)

    @property
    def diarization_max_bytes(self) -> int:
        """Largest body of a request to find who spoke when."""
        return round(self.diarization_max_upload_mb * 1e6)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach the service."""
        return self.host in LOOPBACK
