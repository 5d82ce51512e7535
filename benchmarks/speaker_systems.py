"""Speaker models behind one interface, from waveforms to embeddings.

To add a model: one subclass of `System` and one line in `SYSTEMS`.
"""

import abc
import argparse
import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError


class System(abc.ABC):
    """A speaker model. Its constructor raises `ModelError` if it is not installed.

    Attributes:
        title: Name in the table.
        standardize: Whether to give each dimension zero mean and unit variance over the list
            before scoring, for features not trained for cosine scoring.
    """

    title: ClassVar[str]
    standardize: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(self, args: argparse.Namespace) -> None:
        """Loads the model."""

    @classmethod
    def describe(cls, args: argparse.Namespace) -> str:
        """Returns an id of model and version, without loading it, as key of the cache."""
        del args
        return cls.title

    @abc.abstractmethod
    def embed(self, waveform: FloatArray) -> FloatArray:
        """Embeds one 16 kHz waveform.

        Returns:
            Shape `(embedding_size,)`, of any norm.

        Raises:
            ValueError, AudioError: If the model finds too little speech.
        """


class Mfcc(System):
    """Mean and standard deviation over time of 20 mel cepstral coefficients: no training at all."""

    title = "MFCC mean + std"
    standardize = True

    def __init__(self, args: argparse.Namespace) -> None:
        del args
        _require("librosa")

    def embed(self, waveform: FloatArray) -> FloatArray:
        """Embeds one waveform, as `System.embed` says."""
        import librosa

        mfcc = librosa.feature.mfcc(y=waveform, sr=SAMPLE_RATE, n_mfcc=20)
        return np.concatenate([mfcc.mean(axis=-1), mfcc.std(axis=-1)], axis=-1)


class Resemblyzer(System):
    """GE2E LSTM of the package resemblyzer, with its own silence cutting."""

    title = "Resemblyzer 0.1.4"

    def __init__(self, args: argparse.Namespace) -> None:
        del args
        for package in ("torch", "webrtcvad", "resemblyzer"):
            _require(package)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports a name that SciPy has moved
            import resemblyzer
        self._package: Any = resemblyzer
        self._encoder: Any = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, waveform: FloatArray) -> FloatArray:
        """Embeds one waveform, as `System.embed` says."""
        speech = self._package.preprocess_wav(waveform, SAMPLE_RATE)
        if len(speech) < 0.25 * SAMPLE_RATE:
            raise ValueError("Resemblyzer's voice detection leaves less than 0.25 s")
        return np.asarray(self._encoder.embed_utterance(speech))


class Ours(System):
    """This project's model through `SpeakerEncoder`, silence cutting included."""

    title = "ours"

    def __init__(self, args: argparse.Namespace) -> None:
        _require("keras")
        from utils.model.encoder import SpeakerEncoder

        self._encoder = SpeakerEncoder(args.model_path, num_threads=1)

    @classmethod
    def describe(cls, args: argparse.Namespace) -> str:
        """Returns the title with the checksum of the file."""
        return f"{cls.title} {_sha256(args.model_path)}"

    def embed(self, waveform: FloatArray) -> FloatArray:
        """Embeds one waveform, as `System.embed` says."""
        return self._encoder.embed_waveform(waveform)


class CampPlus(Ours):
    """The public CAM++ as tools/fetch_campplus.py converts it, silence cutting included."""

    title = "CAM++"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(argparse.Namespace(model_path=args.campplus))

    @classmethod
    def describe(cls, args: argparse.Namespace) -> str:
        """Returns the title with the checksum of the file."""
        return f"{cls.title} {_sha256(args.campplus)}"


class BareKeras(System):
    """A Keras file without calibration, for example a checkpoint: `--keras_model FILE`."""

    title = "Keras file"

    def __init__(self, args: argparse.Namespace) -> None:
        if not args.keras_model:
            raise ModelError("no --keras_model was given")
        _require("keras")
        import keras

        import utils.networks.catalogue  # noqa: F401  registers the layers

        self._model: Any = keras.saving.load_model(args.keras_model, compile=False)

    @classmethod
    def describe(cls, args: argparse.Namespace) -> str:
        """Returns the title with the checksum of the file."""
        return f"{cls.title} {_sha256(args.keras_model)}"

    def embed(self, waveform: FloatArray) -> FloatArray:
        """Embeds one waveform, as `System.embed` says."""
        import keras

        from utils.audio.activity import remove_silence
        from utils.networks.features import FUNCTIONS

        compute_features = FUNCTIONS[self._model.inputs[0].name]
        features = compute_features(remove_silence(waveform))[np.newaxis, :, :, np.newaxis]
        outputs = self._model(features, training=False)
        embedding = outputs[-1] if isinstance(outputs, list | tuple) else outputs
        first: FloatArray = np.asarray(keras.ops.convert_to_numpy(embedding), np.float32)[0]
        return first


SYSTEMS: dict[str, type[System]] = {
    "mfcc": Mfcc,
    "resemblyzer": Resemblyzer,
    "campplus": CampPlus,
    "ours": Ours,
    "keras": BareKeras,
}


def _require(package: str) -> None:
    """Raises ModelError if a package is not installed, without importing it."""
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"the package {package} is not installed")


def _sha256(path: str | None) -> str:
    """Returns the start of a file's checksum, or "none" if there is no such file."""
    if not path or not Path(path).is_file():
        return "none"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
