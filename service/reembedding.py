"""After a change of model: the voices are embedded anew beside the requests.

The port answers at once. Who waits, or has no sound to be embedded from, is refused in one sentence
until then; all others are served.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from service.logs import log_event, log_failure
from utils.errors import DatabaseError
from utils.verification.embedding import Encoder
from voices.sql.other_models import Reembedding, SoundFiles
from voices.sql.store import SqlVoiceStore

PROGRESS_S = 10.0
"""Seconds between two lines about the progress."""

RETRY_S = 15.0
"""Seconds after which a database that failed is asked again."""


class BackgroundReembedding:
    """A thread that embeds the recordings of other models; it ends when all are done."""

    def __init__(
        self,
        database: SqlVoiceStore,
        encoder: Encoder,
        find_sound: Callable[[], SoundFiles] | None = None,
    ) -> None:
        """Takes the parts.

        Args:
            database: Where the recordings are.
            encoder: The model in use.
            find_sound: Finds the sound of recordings that are files.
        """
        self._others = database.other_models
        self._encoder = encoder
        self._find_sound = find_sound
        self._stop = threading.Event()
        self._work: Reembedding | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Finds out who waits, and begins if there is somebody.

        Raises:
            DatabaseError: If the database fails.
        """
        if self._others.count() == 0:
            return
        self._work = self._prepare()
        if self._work.num_waiting() > 0:
            self._thread = threading.Thread(target=self._run, name="reembedding", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends after the recording that is being embedded; the next start goes on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end; tells whether it has come."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def is_waiting(self, speaker_id: str) -> bool:
        """Tells whether recordings of a speaker are still to be embedded."""
        return self._work is not None and self._work.is_waiting(speaker_id)

    def count(self, group: str | None = None) -> tuple[int, int]:
        """Returns how many recordings wait, and how many have no sound to be embedded from.

        Args:
            group: Of this group, None for all.

        Raises:
            DatabaseError: If the database does not answer.
        """
        num_missing = self._others.count(group)
        num_waiting = 0 if self._work is None else min(self._work.num_waiting(group), num_missing)
        return num_waiting, num_missing - num_waiting

    def _prepare(self) -> Reembedding:
        """Finds out what there is to do."""
        files = {} if self._find_sound is None else self._find_sound()
        return Reembedding(self._others, self._encoder, files)

    def _run(self) -> None:
        """Works until all is done, and logs how far it is; never a name."""
        try:
            while not self._stop.is_set():
                work = self._work
                if work is None:
                    return
                self._tell("recordings are embedded by the new model", work)
                begun = told = time.monotonic()

                def is_stopped(work: Reembedding = work) -> bool:
                    nonlocal told
                    if time.monotonic() - told > PROGRESS_S:
                        told = time.monotonic()
                        self._tell("recordings are embedded by the new model", work)
                    return self._stop.is_set()

                try:
                    work.run(is_stopped)
                except DatabaseError as error:
                    reason = str(error)
                    log_event(
                        "embedding by the new model waits", level=logging.WARNING, reason=reason
                    )
                    self._stop.wait(RETRY_S)
                    continue
                seconds = round(time.monotonic() - begun, 1)
                self._tell("embedding by the new model ended", work, seconds=seconds)
                return
        except Exception as error:
            log_failure("embedding by the new model failed", error)

    def _tell(self, message: str, work: Reembedding, **more: Any) -> None:
        """Logs the progress."""
        counts: dict[str, Any] = {"done": work.num_done, "waiting": work.num_waiting()}
        log_event(message, **counts, left_out=len(work.rejected), **more)
