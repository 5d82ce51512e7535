"""The picture of the augmentations, and the page that explains it."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech, write_wav
from tools import plot_augmentations
from utils.crops.augment import AUGMENTATIONS


def test_every_change_has_its_panel() -> None:
    others = [synthetic_speech(1)]
    pictures = plot_augmentations.draw(synthetic_speech(0, 0, 3.5), others)
    titles = [title for title, _ in pictures]
    assert titles[0] == "unchanged"
    assert titles[1:-3] == [f"--{name}" for name in AUGMENTATIONS]
    assert titles[-3:] == ["--speeds 0.8", "--flip", "--spec_mask"]
    for title, magnitudes in pictures:
        assert magnitudes.shape == (257, 257)
        assert np.isnan(magnitudes).any() == (title == "--spec_mask")
        assert (title == "unchanged") == np.array_equal(magnitudes, pictures[0][1])


@pytest.mark.slow
def test_script_writes_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voices = [str(write_wav(tmp_path / f"{n}.wav", synthetic_speech(n, 0, 3.0))) for n in range(2)]
    output = tmp_path / "new" / "picture.png"
    line = ["--audio", voices[0], "--others", voices[1], "--output", str(output)]
    assert plot_augmentations.main(line) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    assert str(output) in capsys.readouterr().out


def test_page_explains_every_change_and_its_picture_is_small(root: Path) -> None:
    page = (root / "docs" / "augmentation.md").read_text(encoding="utf-8")
    for name in (*AUGMENTATIONS, "flip", "spec_mask"):
        assert f"| `--{name} P` |" in page
    assert (root / "docs" / "images" / "augmentations.png").stat().st_size < 600_000
