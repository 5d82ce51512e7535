"""Client of the voiceprint service: one file, standard library only, Python 3.10 or later.

    from voiceprint_client import VoiceprintClient

    client = VoiceprintClient("https://voice.example.com", token="...")
    client.enrol("xiaoming", ["monday.wav", "tuesday.wav"])
    print(client.identify("unknown.wav")["name"])

`AsyncVoiceprintClient` has the same methods for asyncio. A recording is a path or the bytes of a
file, in any format that the service reads. Answers are the documents of the service
(docs/service.md) as dictionaries. A refusal is a `ServiceProblem`, no answer at all a
`ServiceUnreachable`; both are `VoiceprintError`.

A client holds no connection and may be shared by threads. Redirects are not followed and no proxy
of the environment is used: recordings go to the given address only.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import math
import os
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, cast
from urllib.parse import SplitResult, quote, urlencode, urlsplit

__all__ = [
    "AsyncLiveStream",
    "AsyncVoiceprintClient",
    "LiveStream",
    "ServiceProblem",
    "ServiceUnreachable",
    "VoiceprintClient",
    "VoiceprintError",
]

Recording = str | os.PathLike[str] | bytes
"""A path, or the content of a file."""

BLOCK_BYTES = 65_536
"""Bytes of a file that are sent at a time."""

PAGE_SIZE = 500
"""Speakers that are asked for at a time when all are."""

RETRIED = (429, 503)
"""Statuses with which the service asks for a later try; such a request has changed nothing."""


CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
"""Kinds of WebSocket frames (RFC 6455, 5.2)."""

WEBSOCKET_ID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What proves that the other side speaks WebSocket (RFC 6455, 1.3)."""

CLOSE_BASE = 4000
"""A stream that is refused closes with this plus the problem's status."""


class Calibration(TypedDict):
    """Log-odds of one speaker: slope * score + offset."""

    slope: float
    offset: float


class Rates(TypedDict):
    """What a threshold led to among the people on whom it was found; rates are fractions."""

    threshold: float
    false_accept_rate: float
    worst_rate: float
    worst_group: str
    miss_rate: float
    num_trials: int


class OtherModels(TypedDict):
    """Recordings that only other models have embedded."""

    waiting: int
    without_sound: int


class Quality(TypedDict):
    """How good a recording is; lengths in seconds, levels in dB relative to full scale."""

    duration_s: float
    speech_s: float
    level_dbfs: float
    peak_dbfs: float
    clipped_fraction: float
    noise_dbfs: float
    snr_db: float
    heard: str
    warnings: list[str]


class Info(TypedDict, total=False):
    """What the service is and allows; without a valid token only `auth_required` and `version`."""

    auth_required: bool
    version: str
    token: str
    scopes: list[str]
    group: str
    groups: list[str]
    model_id: str
    embedding_size: int
    threshold: float
    strict_threshold: float
    score_norm: str
    calibration: Calibration
    rates: list[Rates]
    min_speech_s: float
    max_duration_s: float
    max_upload_bytes: int
    max_recordings: int
    keep_audio: bool
    challenge: Literal["off", "optional", "required"]
    num_speakers: int


class Comparison(TypedDict):
    """Whether two recordings are of one speaker."""

    score: float
    threshold: float
    is_same_speaker: bool
    probability: float
    quality: list[Quality]


class Embedding(TypedDict):
    """The voiceprint of a recording: unit length, comparable within one `model_id`."""

    embedding: list[float]
    model_id: str
    quality: Quality


class ProposedThreshold(TypedDict):
    """A threshold for certain people; rates are `[rate, lower limit, upper limit]`, fractions."""

    promised: float
    is_promised: bool
    in_use: float
    found: float
    proposed: float
    false_accepts: list[float]
    misses: list[float]


class RateCurve(TypedDict):
    """The rates at every threshold, each `[rate, lower limit, upper limit]`."""

    thresholds: list[float]
    false_accepts: list[list[float]]
    misses: list[list[float]]


class Proposal(TypedDict):
    """Thresholds for certain people and their microphone; `file` is for tools/calibrate.py."""

    num_people: int
    num_pairs: int
    num_recordings: int
    confidence: float
    strict: ProposedThreshold
    default: ProposedThreshold
    curve: RateCurve
    file: dict[str, Any]
    commands: list[str]


class Verification(TypedDict):
    """Whether a recording is of the claimed speaker."""

    name: str
    score: float
    threshold: float
    is_same_speaker: bool
    probability: float
    challenge_passed: bool
    quality: Quality


class Challenge(TypedDict):
    """Digits to be read aloud, until `expires_at`; `text` has them in words."""

    id: str
    digits: str
    text: str
    language: str
    speaker: str | None
    expires_at: str
    expires_in_s: float
    min_speech_s: float


class Match(TypedDict):
    """An enrolled speaker and how alike the voice is."""

    name: str
    score: float
    probability: float


class Identification(TypedDict):
    """Whose voice it is: `name` is None if nobody's score reaches the threshold."""

    name: str | None
    score: float | None
    threshold: float
    matches: list[Match]
    quality: Quality


class StoredRecording(TypedDict):
    """A recording of an enrolled speaker."""

    id: str
    created_at: str
    speech_s: float
    duration_s: float
    has_audio: bool
    is_comparable: bool


class Speaker(TypedDict):
    """An enrolled speaker; times are UTC, ISO 8601."""

    name: str
    created_at: str
    updated_at: str
    is_damaged: bool
    recordings: list[StoredRecording]


class NewSpeaker(Speaker):
    """A speaker who was enrolled now; `looks_like` names others whose names look the same."""

    looks_like: list[str]


class EnrolledSpeaker(NewSpeaker):
    """A speaker with the similarity among the sent recordings (cosines) and their quality."""

    similarity: list[list[float]]
    quality: list[Quality]


class SpeakerPage(TypedDict):
    """A page of speakers, in the order of their names."""

    speakers: list[Speaker]
    total: int
    offset: int
    limit: int
    other_models: OtherModels


class Event(TypedDict):
    """Something that happened to the speakers of the token's group; the time is UTC."""

    id: int
    at: str
    actor: str
    action: str
    speaker: str
    outcome: str


class Events(TypedDict):
    """Events, the oldest first; `next` asks for later ones."""

    events: list[Event]
    next: int


class Removed(TypedDict):
    """What a deletion removed."""

    embeddings: int
    recordings: int
    files: list[str]


class Deletion(TypedDict):
    """A deleted speaker."""

    name: str
    removed: Removed


class Job(TypedDict):
    """A long recording that is worked on; `progress` from 0 to 1, times UTC, ISO 8601."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled", "lost"]
    progress: float
    created_at: str
    expires_at: str
    error: dict[str, Any] | None


class FoundSpeaker(TypedDict):
    """A speaker of a recording; `name` is None for nobody who is enrolled."""

    label: str
    name: str | None
    score: float | None
    speech_s: float
    num_turns: int
    can_be_enrolled: bool


class Turn(TypedDict):
    """A stretch of speech of one speaker, whose label is `speaker`."""

    start_s: float
    end_s: float
    speaker: str
    name: str | None
    score: float | None
    is_overlapped: bool


class Turns(TypedDict):
    """Who spoke when; times in seconds."""

    recording: str
    duration_s: float
    overlap_share: float | None
    threshold: float
    speakers: list[FoundSpeaker]
    turns: list[Turn]


class Diarization(Job):
    """A job and, once `state` is "done", what was found."""

    result: Turns | None


class EnrolmentPart(TypedDict):
    """A recording of an enrolment; it counts if it `agrees` in voice or was `confirmed`."""

    number: int
    agrees: bool
    confirmed: bool
    quality: Quality


class Enrolment(TypedDict):
    """An enrolment that is under way: what is there, and what to do `next`."""

    id: str
    name: str | None
    created_at: str
    expires_at: str
    speech_s: float
    needed_speech_s: float
    needed_recordings: int
    completeness: float
    next: Literal["record", "decide", "finish"]
    similarity: list[list[float]]
    recordings: list[EnrolmentPart]


class BulkRow(TypedDict):
    """What became of a recording of a zip."""

    recording: str
    speaker: str
    outcome: Literal["enrolled", "enrolled before", "skipped", "left"]
    reason: str


class BulkReport(TypedDict):
    """What became of the recordings of a zip; while some are `left`, send it again."""

    enrolled: int
    present: int
    skipped: int
    left: int
    recordings: list[BulkRow]


class VoiceprintError(Exception):
    """Whatever the client raises about the service."""


class ServiceUnreachable(VoiceprintError):
    """No answer: nothing listens, the connection broke, or `timeout_s` passed."""


class ServiceProblem(VoiceprintError):
    """An answer that is no success.

    Attributes:
        status: HTTP status.
        code: What to branch on, such as "unknown-speaker"; "" if the answer names none.
        title: What kind of problem it is, a sentence.
        detail: What happened, a sentence that may be shown.
        document: The whole problem document (RFC 9457), {} if the answer was none.
        retry_after_s: Seconds after which the service asks to try again, else None.
        request_id: The request's id in the log of the service, "" if unknown.
    """

    def __init__(self, status: int, document: dict[str, Any], headers: Any, text: str = "") -> None:
        self.status = status
        self.document = document
        self.code = str(document.get("type", "")).rpartition("/")[2]
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail") or self.title or text or f"status {status}")
        self.retry_after_s = _seconds(headers.get("Retry-After"))
        self.request_id = headers.get("X-Request-Id") or ""
        super().__init__(self.detail)


class VoiceprintClient:
    """The service at one address."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8005",
        token: str | None = None,
        *,
        group: str | None = None,
        timeout_s: float = 60.0,
        max_tries: int = 4,
        max_wait_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepares requests; none is sent yet.

        Args:
            url: Address of the service; what is in its path comes before /v1.
            token: Sent as `Authorization: Bearer`.
            group: Whose speakers requests are about, if the token reaches all groups.
            timeout_s: Longest silence of the service, in seconds.
            max_tries: How often a request is sent at most if the service is too busy (429, 503).
            max_wait_s: Longest `Retry-After` that is waited for; a longer one is raised at once.
            ssl_context: For https, another than the system's certificates.

        Raises:
            ValueError: If `url` is no http(s) address, or `max_tries` is below 1.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError(f"url: received {url!r}, expected an address like https://HOST:PORT")
        if max_tries < 1:
            raise ValueError(f"max_tries: received {max_tries}, expected at least 1")
        self.url = url.rstrip("/")
        self._parts = parts
        self._token = token
        self._group = group
        self._timeout_s = timeout_s
        self._max_tries = max_tries
        self._max_wait_s = max_wait_s
        self._ssl_context = ssl_context

    def __repr__(self) -> str:
        """The address; never the token."""
        return f"{type(self).__name__}({self.url!r})"

    def info(self) -> Info:
        """Returns model, thresholds and limits."""
        return cast(Info, self._ask("GET", "/v1/info"))

    def quality(self, recording: Recording) -> Quality:
        """Measures a recording; one without speech is measured too."""
        return cast(Quality, self._ask("POST", "/v1/quality", _Form(file=[recording])))

    def compare(self, first: Recording, second: Recording) -> Comparison:
        """Decides whether two recordings are of one speaker."""
        form = _Form(file1=[first], file2=[second])
        return cast(Comparison, self._ask("POST", "/v1/compare", form))

    def embed(self, recording: Recording) -> Embedding:
        """Returns the embedding of a recording."""
        return cast(Embedding, self._ask("POST", "/v1/embed", _Form(file=[recording])))

    def calibrate(self, people: Mapping[str, Sequence[Recording]]) -> Proposal:
        """Proposes thresholds for certain people and their microphone; nothing is changed or kept.

        Args:
            people: Several, with several recordings each.
        """
        recordings, model_id = [], ""
        for speaker, own in people.items():
            for recording in _several(own):
                form = _Form(file=[recording])
                answer = self._ask("POST", "/v1/calibrations/recordings", form)
                recordings.append({"speaker": speaker, "cuts": answer["cuts"]})
                model_id = answer["model_id"]
        body = _Json({"model_id": model_id, "recordings": recordings})
        return cast(Proposal, self._ask("POST", "/v1/calibrations", body))

    def identify(
        self,
        recording: Recording,
        *,
        candidates: Sequence[str] | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> Identification:
        """Says whose voice it is, among all speakers or the candidates (1:N)."""
        form = _Form(file=[recording])
        form.add("candidates", *(candidates or ()))
        form.add("top_k", top_k)
        form.add("threshold", threshold)
        return cast(Identification, self._ask("POST", "/v1/identify", form))

    def challenge(
        self, speaker: str | None = None, *, language: Literal["en", "zh"] = "en"
    ) -> Challenge:
        """Asks for digits to be read: one recording of them may be sent, within a time.

        Args:
            speaker: The only name that they may be used for.
            language: Of the words.
        """
        body = _Json({"speaker": speaker, "language": language})
        return cast(Challenge, self._ask("POST", "/v1/challenges", body))

    def verify(
        self,
        name: str,
        recording: Recording,
        *,
        threshold: float | None = None,
        challenge: str | None = None,
    ) -> Verification:
        """Decides whether a recording is of the claimed speaker (1:1).

        Args:
            name: Who.
            recording: Of the voice.
            threshold: The least score; default: the model's strict threshold.
            challenge: The `id` of the challenge whose digits were read; an old recording is
                refused then (`replayed`, `bad-challenge`).
        """
        form = _Form(file=[recording])
        form.add("threshold", threshold)
        form.add("challenge", challenge)
        return cast(Verification, self._ask("POST", f"{_path(name)}/verify", form))

    def enrol(
        self,
        name: str,
        recordings: Sequence[Recording],
        *,
        idempotency_key: str | None = None,
        challenge: str | None = None,
    ) -> EnrolledSpeaker:
        """Enrols a speaker; a name that is enrolled already is refused (`speaker-exists`).

        Args:
            name: Any name that can be a file name.
            recordings: One or more; several from different days work best.
            idempotency_key: Names this enrolment, so that sending it again enrols once. Default:
                one made up for this call, which its own further tries share.
            challenge: As in `verify`, for a single recording.
        """
        form = _Form(file=_several(recordings))
        form.add("name", name)
        form.add("challenge", challenge)
        return cast(EnrolledSpeaker, self._change("POST", "/v1/speakers", form, idempotency_key))

    def enrol_zip(self, file: Recording) -> BulkReport:
        """Enrols the recordings of a zip, SPEAKER.wav or SPEAKER/*.wav, and reports on each."""
        return cast(BulkReport, self._ask("POST", "/v1/bulk_enrolments", _Form(file=[file])))

    def add_recordings(
        self, name: str, recordings: Sequence[Recording], *, idempotency_key: str | None = None
    ) -> EnrolledSpeaker:
        """Adds recordings to a speaker; `idempotency_key` as in `enrol`."""
        form, path = _Form(file=_several(recordings)), f"{_path(name)}/recordings"
        return cast(EnrolledSpeaker, self._change("POST", path, form, idempotency_key))

    def replace_recordings(self, name: str, recordings: Sequence[Recording]) -> EnrolledSpeaker:
        """Replaces all recordings of a speaker."""
        form = _Form(file=_several(recordings))
        return cast(EnrolledSpeaker, self._ask("PUT", f"{_path(name)}/recordings", form))

    def speakers(self, *, offset: int = 0, limit: int = 50, query: str = "") -> SpeakerPage:
        """Lists a page of the speakers whose names contain `query`."""
        words = urlencode({"offset": offset, "limit": limit, "query": query})
        return cast(SpeakerPage, self._ask("GET", f"/v1/speakers?{words}"))

    def all_speakers(self, query: str = "") -> list[Speaker]:
        """Lists all speakers whose names contain `query`, page by page."""
        found: list[Speaker] = []
        while True:
            page = self.speakers(offset=len(found), limit=PAGE_SIZE, query=query)
            found += page["speakers"]
            if not page["speakers"] or len(found) >= page["total"]:
                return found

    def events(self, after: int = 0, limit: int = 100) -> Events:
        """Returns what happened after a number; begin with 0, go on with the last `next`."""
        words = urlencode({"after": after, "limit": limit})
        return cast(Events, self._ask("GET", f"/v1/events?{words}"))

    def speaker(self, name: str) -> Speaker:
        """Returns a speaker with the enrolled recordings."""
        return cast(Speaker, self._ask("GET", _path(name)))

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name."""
        return cast(Speaker, self._ask("PATCH", _path(name), _Json({"name": new_name})))

    def delete(self, name: str) -> Deletion:
        """Removes a speaker with all recordings."""
        return cast(Deletion, self._ask("DELETE", _path(name)))

    def delete_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes one recording; the last one goes only with the speaker (`only-recording`)."""
        return cast(Speaker, self._ask("DELETE", _path(name, recording_id)))

    def recording_audio(self, name: str, recording_id: str) -> bytes:
        """Returns a recording as a wav file, if the service keeps it (else `no-audio-kept`)."""
        return self._send("GET", f"{_path(name, recording_id)}/audio")

    def begin_enrolment(
        self,
        name: str | None = None,
        *,
        if_exists: Literal["error", "add", "replace"] = "error",
    ) -> Enrolment:
        """Begins the enrolment of a speaker, to which recordings are added one by one.

        Args:
            name: Whom to enrol; may be told at the end.
            if_exists: What to do with a name that is enrolled: refuse it, add to its recordings,
                or replace them.
        """
        body = _Json({"name": name, "if_exists": if_exists})
        return cast(Enrolment, self._ask("POST", "/v1/enrolments", body))

    def enrolment(self, enrolment_id: str) -> Enrolment:
        """Returns how complete an enrolment is, and what to do next."""
        return cast(Enrolment, self._ask("GET", _enrolment_path(enrolment_id)))

    def add_to_enrolment(self, enrolment_id: str, recording: Recording) -> Enrolment:
        """Adds a recording to an enrolment; the answer tells how complete it is now."""
        path = f"{_enrolment_path(enrolment_id)}/recordings"
        return cast(Enrolment, self._ask("POST", path, _Form(file=[recording])))

    def confirm_in_enrolment(
        self, enrolment_id: str, number: int, *, confirmed: bool = True
    ) -> Enrolment:
        """Lets a recording count whose voice differs from the others', or not any more."""
        path = f"{_enrolment_path(enrolment_id)}/recordings/{number}"
        return cast(Enrolment, self._ask("PATCH", path, _Json({"confirmed": confirmed})))

    def remove_from_enrolment(self, enrolment_id: str, number: int) -> Enrolment:
        """Takes a recording out of an enrolment."""
        path = f"{_enrolment_path(enrolment_id)}/recordings/{number}"
        return cast(Enrolment, self._ask("DELETE", path))

    def finish_enrolment(
        self,
        enrolment_id: str,
        name: str | None = None,
        *,
        if_exists: Literal["error", "add", "replace"] | None = None,
    ) -> NewSpeaker:
        """Enrols the speaker, if the recordings are enough and of one voice, or confirmed.

        Args:
            enrolment_id: Of the enrolment.
            name: Whom, instead of what was told at the beginning.
            if_exists: Also instead of that.
        """
        body = _Json({"name": name, "if_exists": if_exists})
        return cast(NewSpeaker, self._ask("POST", f"{_enrolment_path(enrolment_id)}/finish", body))

    def give_up_enrolment(self, enrolment_id: str) -> None:
        """Removes an enrolment that is under way, with all its recordings."""
        self._send("DELETE", _enrolment_path(enrolment_id))

    def start_diarization(
        self,
        recording: Recording,
        *,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        candidates: Sequence[str] | None = None,
    ) -> Job:
        """Sends a recording of several people; returns the job that finds who spoke when.

        Args:
            recording: Up to four hours, unless the service is set otherwise.
            num_speakers: How many people speak, if that is known.
            min_speakers: How many at least.
            max_speakers: How many at most.
            candidates: Name these enrolled speakers only.
        """
        form = _Form(file=[recording])
        form.add("num_speakers", num_speakers)
        form.add("min_speakers", min_speakers)
        form.add("max_speakers", max_speakers)
        form.add("candidates", *(candidates or ()))
        return cast(Job, self._ask("POST", "/v1/diarizations", form))

    def diarization(self, job_id: str) -> Diarization:
        """Returns state and progress of a job, and the result once it is done."""
        return cast(Diarization, self._ask("GET", _job_path(job_id)))

    def wait_for_diarization(
        self,
        job_id: str,
        *,
        poll_s: float = 1.0,
        on_progress: Callable[[float], None] | None = None,
    ) -> Diarization:
        """Returns a job once it is done.

        Args:
            job_id: The `id` of the job.
            poll_s: Seconds between two looks.
            on_progress: Told the progress, from 0 to 1, at each look.

        Raises:
            ServiceProblem: If it failed or was lost, with the job's own `error`.
        """
        while (job := self.diarization(job_id))["state"] in ("queued", "running"):
            if on_progress is not None:
                on_progress(job["progress"])
            time.sleep(poll_s)
        if job["state"] != "done":
            document = job["error"] or {"detail": f"the job is {job['state']}"}
            raise ServiceProblem(int(document.get("status", 0)), document, {})
        return job

    def diarizations(self) -> list[Job]:
        """Lists the jobs of this token, the newest first."""
        return cast(list[Job], self._ask("GET", "/v1/diarizations")["diarizations"])

    def diarization_rttm(self, job_id: str) -> str:
        """Returns the turns as RTTM, a line a turn."""
        return self._send("GET", f"{_job_path(job_id)}/rttm").decode()

    def enrol_found_speaker(
        self, job_id: str, label: str, name: str, *, if_exists: Literal["error", "add"] = "error"
    ) -> Speaker:
        """Enrols a speaker of a recording from the turns in which nobody else speaks."""
        path = f"{_job_path(job_id)}/speakers/{quote(label, safe='')}/enrol"
        return cast(Speaker, self._ask("POST", path, _Json({"name": name, "if_exists": if_exists})))

    def remove_diarization(self, job_id: str) -> Job:
        """Ends a job if it is not over, and removes all that it found."""
        return cast(Job, self._ask("DELETE", _job_path(job_id)))

    def stream(self) -> LiveStream:
        """Opens a live stream: who is speaking now.

        Raises:
            ServiceProblem: If the service doesn't let it in.
            ServiceUnreachable: If there is no answer.
        """
        return LiveStream(self._parts, self._token, self._timeout_s, self._ssl_context, self._group)

    def _change(self, method: str, path: str, form: _Form, idempotency_key: str | None) -> Any:
        """Sends a request that must not take effect twice."""
        key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
        return self._ask(method, path, form, {"Idempotency-Key": key})

    def _ask(
        self,
        method: str,
        path: str,
        body: _Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Returns the JSON document that a request is answered with."""
        content = self._send(method, path, body, headers)
        try:
            return json.loads(content)
        except ValueError as error:
            raise ServiceUnreachable(f"{self.url}{path}: the answer is not JSON") from error

    def _send(
        self,
        method: str,
        path: str,
        body: _Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """Returns the content of the answer; tries again while the service is too busy.

        Raises:
            ServiceProblem: If the request is refused.
            ServiceUnreachable: If there is no answer. It is not known then whether a change took
                place, so the request is not sent again.
        """
        num_tries = 0
        while True:
            num_tries += 1
            status, answer, content = self._send_once(method, path, body, headers or {})
            if 200 <= status < 300:
                return content
            problem = _problem(status, answer, content)
            wait_s = 1.0 if problem.retry_after_s is None else problem.retry_after_s
            is_over = num_tries >= self._max_tries or wait_s > self._max_wait_s
            if is_over or status not in RETRIED:
                raise problem
            time.sleep(wait_s)

    def _send_once(
        self, method: str, path: str, body: _Body | None, headers: dict[str, str]
    ) -> tuple[int, Any, bytes]:
        """Sends a request once; returns status, headers and content of the answer."""
        headers = {"Accept": "application/json", **headers}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._group is not None:
            headers["Voiceprint-Group"] = self._group
        if body is not None:
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.num_bytes())}
        connection = self._connect()
        try:
            try:
                blocks = None if body is None else body.blocks()
                connection.request(method, self._parts.path.rstrip("/") + path, blocks, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # A refusal may come before the whole upload was read.
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(f"{self.url} does not answer: {reason}") from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        """Returns a connection that is not open yet."""
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=self._timeout_s, context=self._ssl_context
            )
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


class LiveStream:
    """A stream of samples whose speakers the service follows; a context manager.

        with client.stream() as stream:
            threading.Thread(target=send_microphone_to, args=[stream]).start()
            for event in stream:
                print(event["event"], event.get("name"))

    Events are the documents of the service ("speech-start", "speaker", ...). One thread sends,
    another may iterate meanwhile. The iteration ends after `end`, or raises `ServiceProblem` if the
    service refuses to go on, `ServiceUnreachable` if the connection breaks.

    Attributes:
        ready: What the service said first: `sample_rate`, `threshold` and `max_duration_s`.
    """

    def __init__(
        self,
        url: SplitResult,
        token: str | None,
        timeout_s: float,
        ssl_context: Any,
        group: str | None = None,
    ) -> None:
        """Connects; `VoiceprintClient.stream` calls it."""
        self._address = url.geturl()
        self._lock = threading.Lock()
        self._error: dict[str, Any] = {}
        is_secure = url.scheme == "https"
        port = url.port or (443 if is_secure else 80)
        try:
            self._socket = socket.create_connection((url.hostname or "", port), timeout_s)
            if is_secure:
                context = ssl_context or ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=url.hostname)
            self._file = self._socket.makefile("rb")
            self._shake_hands(url, token)
            options = {"token": token, "group": group}
            self._send_text({name: value for name, value in options.items() if value is not None})
            self.ready = next(iter(self))
            if self.ready["event"] == "error":
                raise ServiceProblem(int(self.ready["status"]), self.ready, {})
            # From now on nobody may speak for as long as they like.
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ServiceUnreachable(f"{self._address} does not answer: {error}") from error
            if isinstance(error, StopIteration):
                raise ServiceUnreachable(f"{self._address}: the stream ended at once") from error
            raise

    def send(self, samples: bytes) -> None:
        """Sends samples, 16 kHz, 16-bit little-endian, mono, up to 2 s; 0.1 s is a good length."""
        self._send(BINARY, samples)

    def enrol(
        self, number: int, name: str, *, if_exists: Literal["error", "add"] = "error"
    ) -> None:
        """Enrols an unknown speaker; an event "enrolled" or "error" answers."""
        self._send_text({"enrol": number, "name": name, "if_exists": if_exists})

    def end(self) -> None:
        """Says that no more samples come; the events that are due still follow."""
        self._send_text({"end": True})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the events as they come."""
        while (message := self._receive()) is not None:
            event = json.loads(message)
            if event["event"] == "error":
                self._error = event
            yield event

    def close(self) -> None:
        """Ends the connection at once."""
        for thing in ("_file", "_socket"):
            if hasattr(self, thing):
                getattr(self, thing).close()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shake_hands(self, url: SplitResult, token: str | None) -> None:
        """Asks for a WebSocket (RFC 6455, 4.1)."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {url.path.rstrip('/')}/v1/stream HTTP/1.1",
            f"Host: {url.netloc.rpartition('@')[2]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        lines += [] if token is None else [f"Authorization: Bearer {token}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        words = self._file.readline(BLOCK_BYTES).split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise ServiceUnreachable(f"{self._address}: no answer of HTTP to a WebSocket")
        status, headers = int(words[1]), http.client.parse_headers(self._file)
        if status != 101:
            raise _problem(status, headers, self._file.read(_length(headers)))
        proof = base64.b64encode(hashlib.sha1((key + WEBSOCKET_ID).encode()).digest()).decode()
        if headers.get("Sec-WebSocket-Accept") != proof:
            raise ServiceUnreachable(f"{self._address}: no WebSocket")

    def _send_text(self, document: dict[str, Any]) -> None:
        self._send(TEXT, json.dumps(document).encode())

    def _send(self, kind: int, data: bytes) -> None:
        """Sends a frame, masked as a client has to (RFC 6455, 5.2)."""
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | size)
        elif size < 65_536:
            head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 0x80 | 127, size)
        mask = os.urandom(4)
        stretched = (mask * (size // 4 + 1))[:size]
        number = int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")
        try:
            with self._lock:
                self._socket.sendall(head + mask + number.to_bytes(size, "big"))
        except OSError as error:
            raise ServiceUnreachable(f"{self._address}: the stream is closed: {error}") from error

    def _receive(self) -> bytes | None:
        """Returns the next text; None once the stream has ended as it should.

        Raises:
            ServiceProblem: If the service refuses to go on.
            ServiceUnreachable: If the connection breaks.
        """
        text = b""
        while True:
            first, size = self._read(2)
            kind, size = first & 0x0F, size & 0x7F
            if size > 125:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            data = self._read(size)
            if kind == PING:
                self._send(PONG, data)
            elif kind == CLOSE:
                self._check_close(data)
                return None
            elif kind in (TEXT, CONTINUED):
                text += data
                if first & 0x80:
                    return text

    def _read(self, size: int) -> bytes:
        """Returns as many bytes as asked for."""
        try:
            data = self._file.read(size)
        except (OSError, ValueError) as error:
            raise ServiceUnreachable(f"{self._address}: the stream broke: {error}") from error
        if len(data) < size:
            raise ServiceUnreachable(f"{self._address}: the stream ended without a close")
        return data

    def _check_close(self, data: bytes) -> None:
        """Raises what the code of a close frame stands for."""
        code, reason = int.from_bytes(data[:2], "big"), data[2:].decode(errors="replace")
        if code >= CLOSE_BASE:
            document = self._error or {"detail": reason}
            raise ServiceProblem(code - CLOSE_BASE, document, {})
        if code != 1000:
            raise ServiceUnreachable(f"{self._address}: the stream was closed: {code} {reason}")


class AsyncLiveStream:
    """A `LiveStream` for asyncio: `async with`, `async for`, and awaited methods."""

    def __init__(self, stream: LiveStream) -> None:
        """Uses an open stream."""
        self.stream = stream
        self.ready = stream.ready
        self._events = iter(stream)

    async def send(self, samples: bytes) -> None:
        """Sends samples, as `LiveStream.send`."""
        await asyncio.to_thread(self.stream.send, samples)

    async def enrol(
        self, number: int, name: str, *, if_exists: Literal["error", "add"] = "error"
    ) -> None:
        """Enrols an unknown speaker, as `LiveStream.enrol`."""
        await asyncio.to_thread(self.stream.enrol, number, name, if_exists=if_exists)

    async def end(self) -> None:
        """Says that no more samples come."""
        await asyncio.to_thread(self.stream.end)

    def __aiter__(self) -> AsyncLiveStream:
        return self

    async def __anext__(self) -> dict[str, Any]:
        event = await asyncio.to_thread(next, self._events, None)
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> AsyncLiveStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.close()


P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(
    method: Callable[Concatenate[VoiceprintClient, P], T],
) -> Callable[Concatenate[AsyncVoiceprintClient, P], Awaitable[T]]:
    """Makes an asynchronous method of a synchronous one."""

    async def call(self: AsyncVoiceprintClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self.client, *args, **kwargs)

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


class AsyncVoiceprintClient:
    """The methods of `VoiceprintClient` for asyncio, each in a thread of its default executor.

    A cancelled call ends at once for its caller; its request may still reach the service.
    """

    def __init__(self, client: VoiceprintClient) -> None:
        """Uses a client's address, token and limits."""
        self.client = client

    async def stream(self) -> AsyncLiveStream:
        """Opens a live stream: who is speaking now."""
        return AsyncLiveStream(await asyncio.to_thread(self.client.stream))

    info = _in_thread(VoiceprintClient.info)
    quality = _in_thread(VoiceprintClient.quality)
    compare = _in_thread(VoiceprintClient.compare)
    embed = _in_thread(VoiceprintClient.embed)
    calibrate = _in_thread(VoiceprintClient.calibrate)
    identify = _in_thread(VoiceprintClient.identify)
    challenge = _in_thread(VoiceprintClient.challenge)
    verify = _in_thread(VoiceprintClient.verify)
    enrol = _in_thread(VoiceprintClient.enrol)
    enrol_zip = _in_thread(VoiceprintClient.enrol_zip)
    add_recordings = _in_thread(VoiceprintClient.add_recordings)
    replace_recordings = _in_thread(VoiceprintClient.replace_recordings)
    events = _in_thread(VoiceprintClient.events)
    speakers = _in_thread(VoiceprintClient.speakers)
    all_speakers = _in_thread(VoiceprintClient.all_speakers)
    speaker = _in_thread(VoiceprintClient.speaker)
    rename = _in_thread(VoiceprintClient.rename)
    delete = _in_thread(VoiceprintClient.delete)
    delete_recording = _in_thread(VoiceprintClient.delete_recording)
    recording_audio = _in_thread(VoiceprintClient.recording_audio)
    begin_enrolment = _in_thread(VoiceprintClient.begin_enrolment)
    enrolment = _in_thread(VoiceprintClient.enrolment)
    add_to_enrolment = _in_thread(VoiceprintClient.add_to_enrolment)
    confirm_in_enrolment = _in_thread(VoiceprintClient.confirm_in_enrolment)
    remove_from_enrolment = _in_thread(VoiceprintClient.remove_from_enrolment)
    finish_enrolment = _in_thread(VoiceprintClient.finish_enrolment)
    give_up_enrolment = _in_thread(VoiceprintClient.give_up_enrolment)
    start_diarization = _in_thread(VoiceprintClient.start_diarization)
    diarization = _in_thread(VoiceprintClient.diarization)
    wait_for_diarization = _in_thread(VoiceprintClient.wait_for_diarization)
    diarizations = _in_thread(VoiceprintClient.diarizations)
    diarization_rttm = _in_thread(VoiceprintClient.diarization_rttm)
    enrol_found_speaker = _in_thread(VoiceprintClient.enrol_found_speaker)
    remove_diarization = _in_thread(VoiceprintClient.remove_diarization)


class _Json:
    """A JSON body."""

    content_type = "application/json"

    def __init__(self, document: dict[str, Any]) -> None:
        self._content = json.dumps(document).encode()

    def num_bytes(self) -> int:
        return len(self._content)

    def blocks(self) -> Iterator[bytes]:
        yield self._content


class _Form:
    """A multipart form (RFC 7578); files are read while they are sent, anew for each try."""

    def __init__(self, **files: Sequence[Recording]) -> None:
        self._boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self._parts: list[bytes | Path] = []
        for field, recordings in files.items():
            for recording in recordings:
                self._add_file(field, recording)

    def add(self, field: str, *values: str | float | None) -> None:
        """Adds a field for each value that is not None."""
        for value in values:
            if value is not None:
                self._parts += [self._head(field), str(value).encode(), b"\r\n"]

    def _add_file(self, field: str, recording: Recording) -> None:
        content = recording if isinstance(recording, bytes) else Path(recording)
        # The service goes by the content; a name of the user's machine is nobody's business.
        name = "recording" if isinstance(content, bytes) else f"recording{content.suffix}"
        name = name.encode("ascii", "ignore").decode().replace('"', "")
        head = self._head(
            field, f'; filename="{name}"', "Content-Type: application/octet-stream\r\n"
        )
        self._parts += [head, content, b"\r\n"]

    def _head(self, field: str, more: str = "", headers: str = "") -> bytes:
        disposition = f'Content-Disposition: form-data; name="{field}"{more}\r\n{headers}\r\n'
        return f"--{self._boundary}\r\n{disposition}".encode()

    def num_bytes(self) -> int:
        """Returns the length of the body. Raises OSError if a file is not there."""
        parts = sum(
            len(part) if isinstance(part, bytes) else part.stat().st_size for part in self._parts
        )
        return parts + len(self._end())

    def blocks(self) -> Iterator[bytes]:
        """Yields the body."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            with part.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        yield self._end()

    def _end(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()


_Body = _Json | _Form


def _several(recordings: Sequence[Recording]) -> Sequence[Recording]:
    """Returns recordings; a single one, whose letters would be taken for some, is refused."""
    if isinstance(recordings, str | bytes | os.PathLike):
        raise TypeError("recordings: received a single one, expected a list: [recording]")
    return recordings


def _path(name: str, recording_id: str | None = None) -> str:
    """Returns the path of a speaker, or of one of the recordings."""
    path = f"/v1/speakers/{quote(name, safe='')}"
    return path if recording_id is None else f"{path}/recordings/{quote(recording_id, safe='')}"


def _enrolment_path(enrolment_id: str) -> str:
    """Returns the path of an enrolment that is under way."""
    return f"/v1/enrolments/{quote(enrolment_id, safe='')}"


def _job_path(job_id: str) -> str:
    """Returns the path of a job."""
    return f"/v1/diarizations/{quote(job_id, safe='')}"


def _problem(status: int, headers: Any, content: bytes) -> ServiceProblem:
    """Returns what an answer that is no success says."""
    text = content[:200].decode(errors="replace").strip()
    try:
        document = json.loads(content)
    except ValueError:
        document = {}
    return ServiceProblem(status, document if isinstance(document, dict) else {}, headers, text)


def _length(headers: Any) -> int:
    """Returns how much to read of an answer that is not a WebSocket."""
    text = headers.get("Content-Length") or "0"
    return min(int(text), BLOCK_BYTES) if text.isdigit() else 0


def _seconds(retry_after: str | None) -> float | None:
    """Returns the seconds of a Retry-After header; None without one, or for a date."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
