"""Who is speaking now: follows sound that keeps coming, turn by turn.

A turn begins when somebody starts to speak and ends with a pause or when another voice takes over.
It is named as soon as it holds enough speech, and corrected as more is heard. Whoever is not
enrolled gets a number that stays.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from utils.arrays import FloatArray
from utils.audio.detector import FRAME_SAMPLES, SpeechStream
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError
from utils.verification.embedding import Encoder, score_pair
from voices.live_voices import (
    KEPT_S,
    NEWCOMER_SHARE,
    NUM_RANKED,
    Judgement,
    Rank,
    SessionVoices,
)
from voices.store import VoiceStore

START_PROBABILITY = 0.5
"""Probability of speech from which a turn begins."""

END_PROBABILITY = 0.35
"""Probability of speech below which a frame counts as a pause of a turn."""

START_FRAMES = 3
"""About 0.1 s of speech in a row begin a turn: clicks are shorter."""

PAUSE_FRAMES = 16
"""About 0.5 s without speech end a turn."""

BREAK_FRAMES = 8
"""About 0.25 s without speech: whoever speaks after it may be somebody else."""

FIRST_S = 0.8
"""Seconds of speech after which a turn is named for the first time."""

STEP_S = 0.4
"""Seconds of further speech after which the name is looked at again."""

LONGEST_S = 5.0
"""Seconds of a turn that are embedded, the latest; more costs time and changes little."""

CHANGE_S = 1.6
"""Seconds of the latest speech in which another voice is looked for."""

CHANGE_MARGIN = 0.12
"""How much more alike another voice must be than the turn's own to take the turn over."""

NEW_SPEAKER_S = 1.2
"""Seconds of speech that make a new unknown speaker; shorter turns of nobody keep no number."""


def best_of(database: VoiceStore) -> Rank:
    """Returns what ranks the voices of a store that is loaded; nobody if it is empty."""
    return lambda embedding: database.rank(embedding)[:NUM_RANKED] if database.names() else []


@dataclass(frozen=True)
class LiveTurn:
    """A turn as far as it was heard.

    Attributes:
        start_s: Where it begins, in seconds from the start.
        end_s: Up to where it was heard.
        name: The enrolled speaker, or None.
        number: Number of an unknown speaker from 1, or None while too little was heard.
        score: Similarity with the speaker's voice, None while too little was heard.
        is_over: Whether the turn has ended.
    """

    start_s: float
    end_s: float
    name: str | None = None
    number: int | None = None
    score: float | None = None
    is_over: bool = False

    @property
    def speaker(self) -> str | int | None:
        """The name, else the number, else None."""
        return self.number if self.name is None else self.name


@dataclass(frozen=True)
class _Break:
    """A short pause inside a turn, after which somebody else may speak.

    Attributes:
        start: Its first frame, counted from the start of the sound.
        end: The frame after its last one.
        num_before: Frames of the turn's speech before it.
    """

    start: int
    end: int
    num_before: int


class LiveRecogniser:
    """Follows who is speaking. Memory stays the same however long it listens."""

    def __init__(self, encoder: Encoder, rank: Rank, strict_threshold: float) -> None:
        """Prepares to listen.

        Args:
            encoder: The speaker model.
            rank: The enrolled voices that resemble an embedding most; `best_of` makes one.
            strict_threshold: Score from which a turn is an enrolled speaker's.
        """
        self._encoder = encoder
        self._voices = SessionVoices(encoder, rank, strict_threshold)
        self._stream = SpeechStream()
        self._rest = np.empty(0, np.float32)
        self._num_frames = 0
        self._recent: deque[FloatArray] = deque(maxlen=START_FRAMES)
        self._num_speech = 0
        self._num_pause = 0
        self._turn: LiveTurn | None = None
        self._speech: list[FloatArray] = []
        self._num_heard = 0
        self._num_named = 0
        self._embedding: FloatArray | None = None
        self._is_doubtful = False
        self._break: _Break | None = None
        self._judgement = Judgement()

    def hear(self, samples: FloatArray) -> Iterator[LiveTurn]:
        """Hears the next piece.

        Args:
            samples: Shape `(num_samples,)`, 16 kHz, in [-1, 1].

        Yields:
            The current turn whenever it begins, gets or changes its speaker, or ends.
        """
        samples = np.concatenate([self._rest, np.asarray(samples, np.float32)])
        num_frames = len(samples) // FRAME_SAMPLES
        self._rest = samples[num_frames * FRAME_SAMPLES :]
        frames = samples[: num_frames * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        for frame, probability in zip(frames, self._stream.hear(frames.reshape(-1)), strict=True):
            self._num_frames += 1
            yield from self._hear_frame(frame, float(probability))

    def finish(self) -> Iterator[LiveTurn]:
        """Ends the turn that is under way, if there is one."""
        if self._turn is not None:
            yield from self._end_turn()

    def speech_of(self, number: int) -> FloatArray:
        """Returns what was heard of an unknown speaker, for an enrolment.

        Raises:
            DatabaseError: If nobody has the number.
        """
        number_now = None if self._turn is None else self._turn.number
        return self._voices.speech_of(number, self._speech, number_now)

    def rename(self, number: int, name: str) -> None:
        """Gives an unknown speaker the name under which they were enrolled."""
        self._voices.rename(number, name)
        if self._turn is not None and self._turn.number == number:
            self._turn = replace(self._turn, name=name, number=None)

    @property
    def _now_s(self) -> float:
        return _seconds(self._num_frames)

    def _hear_frame(self, frame: FloatArray, probability: float) -> Iterator[LiveTurn]:
        """Hears 32 ms."""
        if self._turn is None:
            self._recent.append(frame)
            self._num_speech = self._num_speech + 1 if probability >= START_PROBABILITY else 0
            if self._num_speech >= START_FRAMES:
                yield from self._begin_turn(list(self._recent))
            return
        if probability < END_PROBABILITY:
            self._num_pause += 1
            if self._num_pause >= PAUSE_FRAMES:
                yield from self._end_turn()
            return
        if self._num_pause >= BREAK_FRAMES:
            end = self._num_frames - 1
            self._break = _Break(end - self._num_pause, end, self._num_heard)
            self._num_named = self._num_heard
        self._num_pause = 0
        self._keep(frame)
        is_first = self._num_named == (0 if self._break is None else self._break.num_before)
        wanted = FIRST_S if is_first else STEP_S
        if (self._num_heard - self._num_named) * FRAME_SAMPLES >= wanted * SAMPLE_RATE:
            yield from self._name_turn()

    def _keep(self, frame: FloatArray) -> None:
        """Keeps a frame of the turn's speech, the latest 20 s."""
        self._speech.append(frame)
        self._num_heard += 1
        most = _num_frames(KEPT_S)
        if len(self._speech) > most:
            del self._speech[: len(self._speech) - most]

    def _begin_turn(self, frames: list[FloatArray], start: int | None = None) -> Iterator[LiveTurn]:
        """Begins a turn with speech that was heard already, at a frame or just so long ago."""
        start = self._num_frames - len(frames) if start is None else start
        self._turn = LiveTurn(_seconds(start), self._now_s)
        self._break = None
        self._speech, self._num_heard, self._num_named = list(frames), len(frames), 0
        self._embedding, self._judgement = None, Judgement()
        self._is_doubtful = False
        self._num_speech = self._num_pause = 0
        self._recent.clear()
        yield self._turn

    def _end_turn(self) -> Iterator[LiveTurn]:
        """Ends the turn, and remembers its voice."""
        assert self._turn is not None
        turn = self._turn
        if self._break is not None and self._embedding is not None:
            # Who spoke after the pause is not known.
            del self._speech[-(self._num_heard - self._break.num_before) :]
            self._num_heard = self._break.num_before
        elif self._num_heard > self._num_named:
            self._embedding = self._embed(None, None)
            turn = self._judge(self._embedding, turn)
        pause_s = self._num_pause * FRAME_SAMPLES / SAMPLE_RATE
        turn = replace(turn, end_s=self._now_s - pause_s, is_over=True)
        self._remember(turn)
        self._turn, self._speech, self._break = None, [], None
        yield turn

    def _name_turn(self) -> Iterator[LiveTurn]:
        """Names the turn by its speech so far, or ends it where another voice has taken over."""
        assert self._turn is not None
        self._num_named = self._num_heard
        if self._break is not None:
            found = self._is_taken_over(self._num_heard - self._break.num_before)
            if found:
                yield from self._part_at(self._break)
                return
            if found is None and self._turn.speaker is not None:
                return
            if found is False:
                self._break = None
        if num_frames := self._num_taken_over():
            rest = self._speech[-num_frames:]
            del self._speech[-len(rest) :]
            self._num_heard = self._num_named = len(self._speech)
            self._num_pause = len(rest)
            yield from self._end_turn()
            self._num_pause = 0
            yield from self._begin_turn(rest)
            return
        self._embedding = self._embed(None, None)
        before, after = self._turn, self._judge(self._embedding, self._turn)
        self._turn = replace(after, end_s=self._now_s)
        if self._turn.speaker != before.speaker:
            yield self._turn

    def _part_at(self, pause: "_Break") -> Iterator[LiveTurn]:
        """Ends the turn where a pause began, and begins another where it ended."""
        rest = self._speech[-(self._num_heard - pause.num_before) :]
        del self._speech[-len(rest) :]
        self._num_heard = self._num_named = pause.num_before
        self._num_pause = self._num_frames - pause.start
        self._break = None
        yield from self._end_turn()
        yield from self._begin_turn(rest, pause.end)

    def _is_taken_over(self, num_latest: int) -> bool | None:
        """Returns whether the latest frames are another voice's; None if it cannot be told yet."""
        likeness = self._likeness(num_latest)
        if likeness is None:
            return None
        mine, best = likeness
        threshold = self._encoder.threshold
        if (best >= threshold and best > mine + CHANGE_MARGIN) or mine < NEWCOMER_SHARE * threshold:
            return True
        return False if mine >= threshold or num_latest >= _num_frames(CHANGE_S) else None

    def _num_taken_over(self) -> int:
        """Returns how many of the latest frames are another voice's, who spoke without a pause."""
        assert self._turn is not None
        if self._turn.speaker is None or _seconds(self._num_heard) < 2 * CHANGE_S:
            return 0
        num_latest = _num_frames(CHANGE_S)
        likeness = self._likeness(num_latest)
        if likeness is None:
            return 0
        mine, best = likeness
        if best >= self._encoder.threshold and best > mine + CHANGE_MARGIN:
            return num_latest // 2
        # Nobody known: a voice unlike the turn's own is a newcomer's.
        was_doubtful = self._is_doubtful
        self._is_doubtful = mine < NEWCOMER_SHARE * self._encoder.threshold
        return num_latest if self._is_doubtful and was_doubtful else 0

    def _likeness(self, num_latest: int) -> tuple[float, float] | None:
        """Returns how alike the latest frames and the turn before are, and they and other voices.

        None if there is too little speech.
        """
        assert self._turn is not None
        latest, earlier = self._embed(-num_latest, None), self._embed(None, -num_latest)
        if latest is None or earlier is None:
            return None
        scores = self._voices.scores(latest)
        mine = score_pair(self._encoder, latest, earlier)
        own = self._turn.speaker
        if own is not None:
            mine = max(mine, scores.get(own, -1.0))
        return mine, max((s for label, s in scores.items() if label != own), default=-1.0)

    def _embed(self, first: int | None, last: int | None) -> FloatArray | None:
        """Embeds frames of the turn's speech, at most the latest 5 s; None if they are too few."""
        frames = self._speech[first:last][-_num_frames(LONGEST_S) :]
        try:
            return self._encoder.embed_waveform(np.concatenate(frames)) if frames else None
        except AudioError:
            return None

    def _judge(self, embedding: FloatArray | None, turn: LiveTurn) -> LiveTurn:
        """Returns the turn with the speaker whose voice its embedding has."""
        if embedding is None:
            return turn
        found = self._judgement = self._voices.judge(embedding, self._embedded_s)
        if found.name is not None:
            return replace(turn, name=found.name, number=None, score=found.score)
        if found.voice is not None:
            known = self._voices.number_of(found)
            return replace(turn, name=None, number=known, score=found.score)
        if turn.number == self._voices.next_number:
            return turn
        is_long = _seconds(self._num_heard) >= NEW_SPEAKER_S
        number = self._voices.next_number if is_long else None
        return replace(turn, name=None, number=number, score=None)

    def _remember(self, turn: LiveTurn) -> None:
        """Adds the turn to what is known of its voice."""
        if turn.speaker is not None and self._embedding is not None:
            self._voices.remember(
                self._judgement,
                turn.speaker,
                self._embedding,
                self._speech,
                self._embedded_s,
                self._now_s,
            )

    @property
    def _embedded_s(self) -> float:
        """Seconds of the turn's speech that are embedded."""
        return min(_seconds(self._num_heard), LONGEST_S)


def _seconds(num_frames: int) -> float:
    """Returns the length of frames of 32 ms."""
    return num_frames * FRAME_SAMPLES / SAMPLE_RATE


def _num_frames(seconds: float) -> int:
    """Returns the frames of 32 ms in a length."""
    return round(seconds * SAMPLE_RATE / FRAME_SAMPLES)
