"""Whose voice a turn has: the one rule of everything that names people while they speak.

A short stretch over a bad line says little, so evidence is gathered. Turns that sound alike are one
voice of the session, and all that was heard of it is compared with the enrolled voices together.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from utils.arrays import FloatArray
from utils.audio.detector import FRAME_SAMPLES
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import DatabaseError
from utils.verification.embedding import Encoder, score_pair

ENROLLED_S = 10.0
"""Seconds of speech that an enrolled voice is taken to rest on."""

LENIENCE = 0.5
"""Log-odds below those of the strict threshold from which a turn is an enrolled speaker's: a name
is corrected as more is heard. With 0 fewer were named over the telephone, with 1 more strangers."""

KEPT_LENIENCE = 1.5
"""The same for the name that a voice of the session has already."""

NEWCOMER_SHARE = 0.75
"""Below this share of the ordinary threshold, speech is not the voice that it is compared with."""

SURE_S = 1.4
"""Seconds of speech from which that holds against an enrolled voice too: shorter turns score low
whoever speaks."""

KEPT_S = 20.0
"""Seconds of speech of an unknown speaker that are kept for an enrolment."""

MAX_VOICES = 50
"""Voices of a session to remember; those that were silent longest are forgotten."""

NUM_RANKED = 5
"""Enrolled voices that a turn is compared with: the most similar ones."""

Rank = Callable[[FloatArray], Sequence[tuple[str, float]]]
"""From an embedding to the most similar enrolled voices and their scores, the best first."""


@dataclass(eq=False)
class Voice:
    """A voice that was heard in this session.

    Attributes:
        total: Sum of the embeddings of its turns, each times its seconds.
        speech_s: Seconds of speech in it.
        heard_at: When it spoke last, in seconds.
        name: The enrolled speaker whose voice it is, or None.
        number: Its number as an unknown speaker's, from 1; None if it always had a name.
        speech: Its latest speech for an enrolment; empty for enrolled speakers.
    """

    total: FloatArray
    speech_s: float = 0.0
    heard_at: float = 0.0
    name: str | None = None
    number: int | None = None
    speech: deque[FloatArray] = field(default_factory=deque)

    @property
    def label(self) -> str | int | None:
        """The name, else the number."""
        return self.number if self.name is None else self.name


@dataclass(frozen=True)
class Judgement:
    """Whose voice some speech has.

    Attributes:
        name: An enrolled speaker, or None.
        score: With the enrolled voice; for somebody unknown with the voice of the session.
        voice: The voice of the session that it resembles, None if there is none.
        is_clear: Whether the speech by itself is the enrolled speaker's.
    """

    name: str | None = None
    score: float | None = None
    voice: Voice | None = None
    is_clear: bool = False


class SessionVoices:
    """The voices of one session, and whose they are."""

    def __init__(self, encoder: Encoder, rank: Rank, strict_threshold: float) -> None:
        """Starts with none.

        Args:
            encoder: The speaker model.
            rank: The enrolled voices that resemble an embedding most.
            strict_threshold: Score from which two long recordings are one speaker's.
        """
        self._encoder = encoder
        self._rank = rank
        self._voices: list[Voice] = []
        self._least = self._evidence(strict_threshold, ENROLLED_S)
        self.next_number = 1

    def judge(self, embedding: FloatArray, speech_s: float) -> Judgement:
        """Tells whose voice some speech has.

        The log-odds of one speaker decide: with little speech all scores are lower, also those of
        strangers, so that a lower score says as much. A voice of the session that is as alike as
        the ordinary threshold asks lends its speech to the comparison, and its name as long as the
        new speech does not speak against it.

        Args:
            embedding: Unit length, shape `(embedding_size,)`.
            speech_s: Seconds of speech in it.
        """
        ranked = self._rank(embedding)[:NUM_RANKED]
        heard = [(score_pair(self._encoder, embedding, _unit(v.total)), v) for v in self._voices]
        score, voice = max(heard, key=lambda pair: pair[0], default=(-1.0, None))
        if score < self._encoder.threshold:
            voice = None
        if ranked and self._evidence(ranked[0][1], speech_s) >= self._least - LENIENCE:
            return Judgement(*ranked[0], voice, is_clear=True)
        if voice is None:
            return Judgement()
        name, total_score = self._recognise(voice, embedding, speech_s)
        if name is None:
            return Judgement(None, score, voice)
        own = dict(ranked).get(name, -1.0)
        if speech_s >= SURE_S and own < NEWCOMER_SHARE * self._encoder.threshold:
            return Judgement()
        return Judgement(name, total_score, voice)

    def remember(
        self,
        judgement: Judgement,
        label: str | int,
        embedding: FloatArray,
        speech: Sequence[FloatArray],
        speech_s: float,
        now_s: float,
    ) -> None:
        """Adds a turn that has ended to the voice that it has.

        A voice with a name learns only from turns that are clearly its speaker's: one turn of
        somebody else would draw others after it.

        Args:
            judgement: Of the turn.
            label: The name or number that the turn was shown with.
            embedding: Of the turn, unit length, shape `(embedding_size,)`.
            speech: Its frames.
            speech_s: Seconds of speech in the embedding.
            now_s: When it ended.
        """
        voice = judgement.voice
        if voice not in self._voices:
            voice = None  # it was forgotten meanwhile
        if isinstance(label, str) and voice is not None and voice.name not in (None, label):
            voice = next((other for other in self._voices if other.name == label), None)
        if voice is None:
            voice = Voice(np.zeros_like(embedding))
            self._voices.append(voice)
        voice.heard_at = now_s
        is_named_already = voice.name is not None and voice.name == label
        if not is_named_already or judgement.is_clear:
            voice.total = voice.total + np.float32(speech_s) * embedding
            voice.speech_s += speech_s
        self._label(voice, label)
        if voice.name is None:
            voice.speech.extend(speech)
            while len(voice.speech) * FRAME_SAMPLES > KEPT_S * SAMPLE_RATE:
                voice.speech.popleft()
        if len(self._voices) > MAX_VOICES:
            self._voices.remove(min(self._voices, key=lambda other: other.heard_at))

    def scores(self, embedding: FloatArray) -> dict[str | int, float]:
        """Returns the similarity with each voice of the session and the best enrolled ones."""
        scores: dict[str | int, float] = dict(self._rank(embedding)[:NUM_RANKED])
        for voice in self._voices:
            if voice.label is not None:
                score = score_pair(self._encoder, embedding, _unit(voice.total))
                scores[voice.label] = max(score, scores.get(voice.label, -1.0))
        return scores

    def number_of(self, judgement: Judgement) -> int:
        """Returns the number of somebody unknown: the voice's, or the next one."""
        voice = judgement.voice
        return voice.number if voice is not None and voice.number is not None else self.next_number

    def speech_of(self, number: int, current: Sequence[FloatArray], now: int | None) -> FloatArray:
        """Returns what was heard of an unknown speaker, for an enrolment.

        Args:
            number: The speaker's.
            current: Frames of the turn that is under way.
            now: The number that this turn has, or None.

        Raises:
            DatabaseError: If nobody has the number.
        """
        unknown = {voice.number: voice for voice in self._voices if voice.name is None}
        speech = list(unknown[number].speech) if number in unknown else []
        speech += current if now == number else []
        if not speech:
            numbers = {each for each in (*unknown, now) if each is not None}
            raise DatabaseError(
                f"received the number {number}, expected one of an unknown speaker: "
                + (", ".join(map(str, sorted(numbers))) or "nobody unknown was heard so far")
            )
        return np.concatenate(speech)

    def rename(self, number: int, name: str) -> None:
        """Gives an unknown speaker the name under which they were enrolled."""
        for voice in self._voices:
            if voice.name is None and voice.number == number:
                self._label(voice, name)

    def _label(self, voice: Voice, label: str | int) -> None:
        """Gives a voice the label that was shown."""
        if isinstance(label, str):
            voice.name = label
            voice.speech.clear()
            return
        voice.name, voice.number = None, label
        self.next_number = max(self.next_number, label + 1)

    def _recognise(
        self, voice: Voice, embedding: FloatArray, speech_s: float
    ) -> tuple[str | None, float]:
        """Returns the enrolled speaker of a voice together with new speech, and the score."""
        together = _unit(voice.total + np.float32(speech_s) * embedding)
        for place, (name, score) in enumerate(self._rank(together)[:NUM_RANKED]):
            evidence = self._evidence(score, voice.speech_s + speech_s)
            lenience = KEPT_LENIENCE if name == voice.name else LENIENCE
            if evidence >= self._least - lenience and (place == 0 or name == voice.name):
                return name, score
        return None, -1.0

    def _evidence(self, score: float, speech_s: float) -> float:
        """Returns the log-odds that a score with an enrolled voice means one speaker."""
        return float(self._encoder.calibration.log_odds(score, (speech_s, ENROLLED_S)))


def _unit(vector: FloatArray) -> FloatArray:
    """Returns a vector scaled to unit length."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
