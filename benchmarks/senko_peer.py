"""Runs senko 0.2.2 on recordings, in the interpreter that has it; writes an RTTM file for each.

    peers/bin/python benchmarks/senko_peer.py FOLDER recording.wav ...

senko and silero-vad need PyTorch, which this project does not. senko's filter bank library ends
with "Illegal instruction" on processors without AVX-512; kaldi-native-fbank computes the same
features here on every processor. Prints the seconds of each recording as JSON, without loading.
"""

import ctypes
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np

BATCH_SEGMENTS_SAMPLES = 400
"""Samples of one frame: shorter segments are filled with zeros, as senko's library does."""


def filter_bank(self: Any, source: Any, segments: Any, *, sample_offset: int = 0) -> Any:
    """Stands in for `Diarizer._extract_fbank_features`."""
    import kaldi_native_fbank
    import soundfile

    waveform = (
        source if isinstance(source, np.ndarray) else soundfile.read(source, dtype="float32")[0]
    )
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    features: list[Any] = []
    counts: list[int] = []
    offsets: list[int] = []
    for start_s, end_s in segments:
        start = int(start_s * 16000) - sample_offset
        piece = waveform[start : start + max(int((end_s - start_s) * 16000), 1)]
        piece = np.pad(piece, (0, max(BATCH_SEGMENTS_SAMPLES - len(piece), 0)))
        bank = kaldi_native_fbank.OnlineFbank(options)
        bank.accept_waveform(16000, piece.tolist())
        bank.input_finished()
        frames = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
        offsets.append(sum(counts) * 80)
        counts.append(len(frames))
        features.append((frames - frames.mean(axis=0)).ravel())
    return np.concatenate(features).astype(np.float32), np.array(counts), np.array(offsets), 80


def main(argv: list[str]) -> int:
    """Writes the turns of each recording; returns the exit status."""
    from senko import diarizer

    # The library is loaded only for that function; nothing of this stand-in is ever called again.
    library = MagicMock()
    library.create_fbank_extractor.return_value = None
    diarizer.ctypes = SimpleNamespace(**{**vars(ctypes), "CDLL": lambda path: library})
    diarizer.Diarizer._extract_fbank_features = filter_bank
    system = diarizer.Diarizer(device="cpu", vad="silero", warmup=False, quiet=True)
    folder, paths = Path(argv[0]), [Path(name) for name in argv[1:]]
    seconds = []
    for path in paths:
        start = time.perf_counter()
        found = system.diarize(str(path)) or {"merged_segments": []}
        seconds.append(time.perf_counter() - start)
        lines = [
            f"SPEAKER {path.stem} 1 {turn['start']:.3f} {turn['end'] - turn['start']:.3f} "
            f"<NA> <NA> {turn['speaker']} <NA> <NA>\n"
            for turn in found["merged_segments"]
        ]
        (folder / f"{path.stem}.rttm").write_text("".join(lines), encoding="utf-8")
    print(json.dumps(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
