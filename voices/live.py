"""Who is speaking now: follows sound that keeps coming, turn by turn.

A turn begins when somebody starts to speak and ends with a pause or when another voice takes over.
It is named as soon as it holds enough speech, and corrected as more is heard. Whoever is not
enrolled gets a number that stays.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.arrays import FloatArray
from utils.audio.detector import FRAME_SAMPLES, SpeechStream
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError, DatabaseError
from utils.verification.embedding import Encoder, score_pair
from utils.verification.verdict import verdict
from voices.store import VoiceStore

START_PROBABILITY = 0.5
"""Probability of speech from which a turn begins."""

END_PROBABILITY = 0.35
"""Probability of speech below which a frame counts as a pause of a turn."""

START_FRAMES = 3
"""About 0.1 s of speech in a row begin a turn: clicks are shorter."""

PAUSE_FRAMES = 16
"""About 0.5 s without speech end a turn."""

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

NEWCOMER_SHARE = 0.75
"""Below this share of the ordinary threshold, twice running, the latest speech is a newcomer's."""

MARGIN = 0.1
"""How far the best enrolled speaker must stand out from the second below the strict threshold."""

NEW_SPEAKER_S = 1.2
"""Seconds of speech that make a new unknown speaker; shorter turns of nobody keep no number."""

KEPT_S = 20.0
"""Seconds of speech of an unknown speaker that are kept for an enrolment."""

MAX_UNKNOWN = 50
"""Unknown speakers to remember; those who were silent longest are forgotten."""

NUM_RANKED = 5
"""Enrolled voices that a turn is compared with: the most similar ones."""

Rank = Callable[[FloatArray], Sequence[tuple[str, float]]]
"""From an embedding to the most similar enrolled voices and their scores, the best first."""


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


@dataclass
class _Voice:
    """A voice that was heard in this session.

    Attributes:
        total: Sum of the embeddings of its turns.
        speech: Speech for an enrolment, the latest last; empty for enrolled speakers.
        heard_at: When it spoke last, in seconds.
    """

    total: FloatArray
    speech: deque[FloatArray]
    heard_at: float

    @property
    def mean(self) -> FloatArray:
        """The mean of the turns, unit length."""
        length = max(float(np.linalg.norm(self.total)), 1e-9)
        return np.asarray(self.total / length, np.float32)


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
        self._rank = rank
        self._strict_threshold = strict_threshold
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
        self._voices: dict[str | int, _Voice] = {}
        self._next_number = 1

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
        voice = self._voices.get(number)
        speech = [] if voice is None else list(voice.speech)
        if self._turn is not None and self._turn.number == number:
            speech += self._speech
        if not speech:
            numbers = {label for label in self._voices if isinstance(label, int)}
            numbers |= {self._turn.number} if self._turn and self._turn.number else set()
            raise DatabaseError(
                f"received the number {number}, expected one of an unknown speaker: "
                + (", ".join(map(str, sorted(numbers))) or "nobody unknown was heard so far")
            )
        return np.concatenate(speech)

    def rename(self, number: int, name: str) -> None:
        """Gives an unknown speaker the name under which they were enrolled."""
        voice = self._voices.pop(number, None)
        if voice is not None:
            known = self._voices.get(name)
            voice.total = voice.total + (0 if known is None else known.total)
            voice.speech.clear()
            self._voices[name] = voice
        if self._turn is not None and self._turn.number == number:
            self._turn = replace(self._turn, name=name, number=None)

    @property
    def _now_s(self) -> float:
        return self._num_frames * FRAME_SAMPLES / SAMPLE_RATE

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
        self._num_pause = 0
        self._keep(frame)
        wanted = FIRST_S if self._num_named == 0 else STEP_S
        if (self._num_heard - self._num_named) * FRAME_SAMPLES >= wanted * SAMPLE_RATE:
            yield from self._name_turn()

    def _keep(self, frame: FloatArray) -> None:
        """Keeps a frame of the turn's speech, the latest 20 s."""
        self._speech.append(frame)
        self._num_heard += 1
        most = _num_frames(KEPT_S)
        if len(self._speech) > most:
            del self._speech[: len(self._speech) - most]

    def _begin_turn(self, frames: list[FloatArray]) -> Iterator[LiveTurn]:
        """Begins a turn with speech that was heard already."""
        length_s = len(frames) * FRAME_SAMPLES / SAMPLE_RATE
        self._turn = LiveTurn(self._now_s - length_s, self._now_s)
        self._speech, self._num_heard, self._num_named = list(frames), len(frames), 0
        self._embedding = None
        self._is_doubtful = False
        self._num_speech = self._num_pause = 0
        self._recent.clear()
        yield self._turn

    def _end_turn(self) -> Iterator[LiveTurn]:
        """Ends the turn, and remembers its voice."""
        assert self._turn is not None
        turn = self._turn
        if self._num_heard > self._num_named:
            self._embedding = self._embed(None, None)
            turn = self._judge(self._embedding, turn)
        pause_s = self._num_pause * FRAME_SAMPLES / SAMPLE_RATE
        turn = replace(turn, end_s=self._now_s - pause_s, is_over=True)
        self._remember(turn)
        self._turn, self._speech = None, []
        yield turn

    def _name_turn(self) -> Iterator[LiveTurn]:
        """Names the turn by its speech so far, or ends it where another voice has taken over."""
        assert self._turn is not None
        self._num_named = self._num_heard
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

    def _num_taken_over(self) -> int:
        """Returns how many of the latest frames are another voice's than the turn's own."""
        assert self._turn is not None
        length_s = self._num_heard * FRAME_SAMPLES / SAMPLE_RATE
        own = self._turn.speaker
        if own is None or length_s < 2 * CHANGE_S:
            return 0
        num_latest = _num_frames(CHANGE_S)
        latest, earlier = self._embed(-num_latest, None), self._embed(None, -num_latest)
        if latest is None or earlier is None:
            return 0
        scores = self._scores(latest)
        mine = max(scores.get(own, -1.0), score_pair(self._encoder, latest, earlier))
        others = [score for label, score in scores.items() if label != own]
        best = max(others, default=-1.0)
        if best >= self._encoder.threshold and best > mine + CHANGE_MARGIN:
            return num_latest // 2
        # Nobody known: a voice unlike the turn's own is a newcomer's.
        was_doubtful = self._is_doubtful
        self._is_doubtful = mine < NEWCOMER_SHARE * self._encoder.threshold
        return num_latest if self._is_doubtful and was_doubtful else 0

    def _embed(self, first: int | None, last: int | None) -> FloatArray | None:
        """Embeds frames of the turn's speech, at most the latest 5 s; None if they are too few."""
        frames = self._speech[first:last][-_num_frames(LONGEST_S) :]
        try:
            return self._encoder.embed_waveform(np.concatenate(frames)) if frames else None
        except AudioError:
            return None

    def _scores(self, embedding: FloatArray) -> dict[str | int, float]:
        """Returns the similarity with each voice of the session and the best enrolled ones."""
        scores = self._heard(embedding)
        for name, score in self._rank(embedding):
            scores[name] = max(score, scores.get(name, -1.0))
        return scores

    def _heard(self, embedding: FloatArray) -> dict[str | int, float]:
        """Returns the score of each voice that was heard in this session."""
        return {
            label: score_pair(self._encoder, embedding, voice.mean)
            for label, voice in self._voices.items()
        }

    def _judge(self, embedding: FloatArray | None, turn: LiveTurn) -> LiveTurn:
        """Returns the turn with the speaker whose voice its embedding resembles most."""
        if embedding is None:
            return turn
        heard = self._heard(embedding)
        label, score = max(heard.items(), key=lambda item: item[1], default=(None, -1.0))
        found = self._recognise(embedding)
        if isinstance(label, int) and score >= self._encoder.threshold and found is None:
            # All that was heard of an unknown speaker may say more than one turn.
            found = self._recognise(embedding + self._voices[label].total)
        if found is not None:
            return replace(turn, name=found[0], number=None, score=found[1])
        # Who spoke before in this session needs less than who appears for the first time.
        if isinstance(label, str) and score >= self._encoder.threshold:
            return replace(turn, name=label, number=None, score=score)
        if isinstance(label, int) and score >= self._encoder.threshold:
            return replace(turn, name=None, number=label, score=score)
        if turn.number == self._next_number:
            return turn
        is_long = self._num_heard * FRAME_SAMPLES >= NEW_SPEAKER_S * SAMPLE_RATE
        return replace(turn, name=None, number=self._next_number if is_long else None, score=None)

    def _recognise(self, vector: FloatArray) -> tuple[str, float] | None:
        """Returns the enrolled speaker with this voice and the score, None if it is nobody's.

        Below the strict threshold, down to halfway to the ordinary one, the best must also stand
        out from the second: a stranger resembles several alike.
        """
        ranked = self._rank(vector / np.float32(max(float(np.linalg.norm(vector)), 1e-9)))
        if not ranked:
            return None
        name, score = ranked[0]
        margin = score - ranked[1][1] if len(ranked) > 1 else MARGIN
        least = (self._strict_threshold + min(self._encoder.threshold, self._strict_threshold)) / 2
        is_match = verdict(score, self._strict_threshold) or (
            verdict(score, least) and margin >= MARGIN
        )
        return (name, score) if is_match else None

    def _remember(self, turn: LiveTurn) -> None:
        """Adds the turn to what is known of its voice."""
        label = turn.speaker
        if label is None or self._embedding is None:
            return
        voice = self._voices.get(label)
        if isinstance(label, str):
            self._forget_double(label)
        if voice is None:
            if label == self._next_number:
                self._next_number += 1
            voice = _Voice(np.zeros_like(self._embedding), deque(), self._now_s)
            self._voices[label] = voice
        voice.total = voice.total + self._embedding
        voice.heard_at = self._now_s
        if isinstance(label, int):
            voice.speech.extend(self._speech)
            while len(voice.speech) * FRAME_SAMPLES > KEPT_S * SAMPLE_RATE:
                voice.speech.popleft()
            unknown = [other for other in self._voices if isinstance(other, int)]
            if len(unknown) > MAX_UNKNOWN:
                del self._voices[min(unknown, key=lambda other: self._voices[other].heard_at)]

    def _forget_double(self, name: str) -> None:
        """Drops the number that a speaker had until the turns together revealed the name."""
        assert self._embedding is not None
        for label, score in self._heard(self._embedding).items():
            if isinstance(label, int) and score >= self._encoder.threshold:
                found = self._recognise(self._embedding + self._voices[label].total)
                if found is not None and found[0] == name:
                    del self._voices[label]


def _num_frames(seconds: float) -> int:
    """Returns the frames of 32 ms in a length."""
    return round(seconds * SAMPLE_RATE / FRAME_SAMPLES)
