"""The features that speaker models of other projects take: as ONNX nodes, and by a reference."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.export.onnx_graph import Graph, fourier_basis
from utils.networks.filterbank import FRAME_LENGTH, FRAME_SHIFT, HIGHEST_HZ, NUM_MEL_BINS


@dataclass(frozen=True)
class KaldiFeatures:
    """Kaldi's filter bank of 80 bins, less its mean over time; no dither.

    Attributes:
        window: "povey" or "hamming".
        sample_scale: What samples in [-1, 1] are multiplied by: 1, or 32768 as for 16-bit numbers.
        highest_hz: Upper edge of the last triangle; the lower edge of the first is 20 Hz.
        snip_edges: Whether frames lie wholly inside the waveform; else it is mirrored at its ends.
    """

    window: str = "povey"
    sample_scale: int = 1
    highest_hz: float = HIGHEST_HZ
    snip_edges: bool = True

    @property
    def num_bins(self) -> int:
        """Size of a frame."""
        return NUM_MEL_BINS

    @property
    def frames_axis(self) -> int:
        """Axis of the network's input along which time goes."""
        return 1

    def add_to(self, graph: Graph, waveform: str) -> list[str]:
        """Adds the features, `(1, num_frames, 80)`, to a graph and returns their name."""
        if not self.snip_edges:
            waveform = self._mirrored(graph, waveform)
        bank = graph.filterbank(waveform, self.window, self.highest_hz, self.sample_scale)
        frames = graph.node("Squeeze", bank, graph.ints(1))
        return [graph.node("Transpose", frames, perm=[0, 2, 1])]

    def _mirrored(self, graph: Graph, waveform: str) -> str:
        """Adds the mirrored samples before and after a waveform that Kaldi's frames reach into."""
        before, after = (FRAME_LENGTH - FRAME_SHIFT) // 2, FRAME_LENGTH // 2
        axis, back = graph.ints(1), graph.ints(-1)
        start = graph.node(
            "Slice", waveform, graph.ints(before - 1), graph.ints(-(2**62)), axis, back
        )
        end = graph.node("Slice", waveform, back, graph.ints(-after - 1), axis, back)
        return graph.node("Concat", start, waveform, end, axis=1)

    def reference(self, waveform: FloatArray) -> list[Any]:
        """Returns the same inputs of the network by kaldi-native-fbank."""
        import kaldi_native_fbank as knf

        options = knf.FbankOptions()
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = self.window
        options.frame_opts.snip_edges = self.snip_edges
        options.mel_opts.num_bins = NUM_MEL_BINS
        options.mel_opts.high_freq = self.highest_hz
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(SAMPLE_RATE, (waveform * self.sample_scale).tolist())
        bank.input_finished()
        frames = np.array([bank.get_frame(index) for index in range(bank.num_frames_ready)])
        return [(frames - frames.mean(axis=0))[None].astype(np.float32)]


@dataclass(frozen=True)
class NemoFeatures:
    """NeMo's log mel spectrogram: every bin gets mean 0 and deviation 1 over time.

    Attributes:
        num_bins: Slaney's triangles from 0 to 8000 Hz.
        window_ms: Length of the symmetric Hann window.

    Source: NVIDIA NeMo, AudioToMelSpectrogramPreprocessor: pre-emphasis of the whole waveform,
    frames centred on every tenth millisecond, zeros up to a multiple of 16 frames.
    """

    num_bins: int = 80
    window_ms: int = 25

    PRE_EMPHASIS = 0.97
    ZERO_GUARD = 2.0**-24
    DEVIATION_GUARD = 1e-5
    MULTIPLE = 16

    @property
    def frames_axis(self) -> int:
        """Axis of the network's input along which time goes."""
        return 2

    def _window(self) -> FloatArray:
        return np.asarray(np.hanning(self.window_ms * SAMPLE_RATE // 1000), np.float32)

    def _filters(self) -> FloatArray:
        """Returns the triangles, shape `(num_bins, 257)`."""
        from librosa.filters import mel

        filters: FloatArray = mel(sr=SAMPLE_RATE, n_fft=512, n_mels=self.num_bins)
        return filters

    def add_to(self, graph: Graph, waveform: str) -> list[str]:
        """Adds the features, `(1, num_bins, num_frames)`, and the number of frames, `(1,)`."""
        window = self._window()
        samples = graph.node("Unsqueeze", waveform, graph.ints(1))
        difference = graph.constant([[[-self.PRE_EMPHASIS, 1.0]]])
        samples = graph.node("Conv", samples, difference, kernel_shape=[2], pads=[1, 0])
        transform = graph.node(
            "Conv", samples, graph.constant(fourier_basis(window)),
            kernel_shape=[len(window)], strides=[FRAME_SHIFT], pads=[len(window) // 2] * 2,
        )  # fmt: skip
        square = graph.node("Mul", transform, transform)
        parts = graph.node("Reshape", square, graph.ints(1, 2, 257, -1))
        power = graph.node("ReduceSum", parts, graph.ints(1), keepdims=0)
        energies = graph.node("MatMul", graph.constant(self._filters()), power)
        levels = graph.node("Log", graph.node("Add", energies, graph.constant(self.ZERO_GUARD)))
        length = graph.node("Gather", graph.node("Shape", waveform), graph.ints(1), axis=0)
        count = graph.node("Div", length, graph.ints(FRAME_SHIFT))
        levels = graph.node("Slice", levels, graph.ints(0), count, graph.ints(2))
        centred = graph.node("Sub", levels, graph.node("ReduceMean", levels, axes=[2]))
        sums = graph.node("ReduceSum", graph.node("Mul", centred, centred), graph.ints(2))
        less_one = graph.node("Cast", graph.node("Sub", count, graph.ints(1)), to=1)
        deviation = graph.node("Sqrt", graph.node("Div", sums, less_one))
        guarded = graph.node("Add", deviation, graph.constant(self.DEVIATION_GUARD))
        features = graph.node("Div", centred, guarded)
        wanted = graph.node("Add", count, graph.ints(self.MULTIPLE - 1))
        wanted = graph.node("Div", wanted, graph.ints(self.MULTIPLE))
        missing = graph.node("Sub", graph.node("Mul", wanted, graph.ints(self.MULTIPLE)), count)
        pads = graph.node("Concat", graph.ints(0, 0, 0, 0, 0), missing, axis=0)
        return [graph.node("Pad", features, pads), count]

    def reference(self, waveform: FloatArray) -> list[Any]:
        """Returns the same inputs of the network by librosa."""
        import librosa

        count = len(waveform) // FRAME_SHIFT
        sharpened = np.append(waveform[0], waveform[1:] - self.PRE_EMPHASIS * waveform[:-1])
        transform = librosa.stft(
            sharpened, n_fft=512, hop_length=FRAME_SHIFT, win_length=len(self._window()),
            window=self._window(), pad_mode="constant",
        )  # fmt: skip
        power = np.abs(transform[:, :count]) ** 2
        levels = np.log(self._filters() @ power + self.ZERO_GUARD)
        deviation = levels.std(axis=1, ddof=1, keepdims=True) + self.DEVIATION_GUARD
        features = (levels - levels.mean(axis=1, keepdims=True)) / deviation
        padded = np.pad(features, [(0, 0), (0, -count % self.MULTIPLE)])
        return [padded[None].astype(np.float32), np.array([count])]


Features = KaldiFeatures | NemoFeatures


FRONT_ENDS: dict[str, Features] = {
    "wespeaker": KaldiFeatures("hamming", 32768),
    "3dspeaker": KaldiFeatures(),
    "sherpa": KaldiFeatures(highest_hz=7600.0, snip_edges=False),
    "nemo": NemoFeatures(),
}
"""The features of each project, by the choices of `--front_end`. "sherpa" are those that
sherpa-onnx computes for models of wespeaker and 3D-Speaker, which were trained on their own."""
