"""Public speaker models in ONNX: which features they take, joining these, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.public_models import FORMS, SIZE, write_public_model
from tests.support.synthetic_voices import synthetic_speech
from utils.errors import ModelError
from utils.export.public_features import FRONT_ENDS, KaldiFeatures, NemoFeatures
from utils.export.public_join import check_joined
from utils.export.public_join import write_public_model as write_joined
from utils.export.public_model import read_public_model
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header
from utils.model.onnx import load_onnx_network

WAVEFORMS = [synthetic_speech(1, 0, seconds) for seconds in (0.4, 1.0031, 2.0)]


def join(path: Path, joined: Path, front_end: str | None = None, **options: Any) -> float:
    """Writes the joined file and returns the lowest cosine to the two steps."""
    public = read_public_model(path, front_end, **options)
    write_joined(public, joined)
    return check_joined(public, joined, WAVEFORMS)


@pytest.mark.parametrize(
    ("form", "front_end"),
    [
        ("wespeaker", "wespeaker"),
        ("3dspeaker", "3dspeaker"),
        ("sherpa wespeaker", "wespeaker"),
        ("sherpa 3dspeaker", "3dspeaker"),
        ("nemo", "nemo"),
    ],
)
def test_equals_the_two_steps(tmp_path: Path, form: str, front_end: str) -> None:
    path = write_public_model(tmp_path / "public.onnx", form)
    assert join(path, tmp_path / "ours.onnx") > 0.99999
    header = read_header(tmp_path / "ours.onnx")
    assert header.metadata["features"]["front_end"] == front_end
    assert header.embedding_size == SIZE and not header.is_calibrated
    embedding = SpeakerEncoder(header).embed_waveform(synthetic_speech(2, 0, 2.0))
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
@pytest.mark.parametrize("form", ["3dspeaker", "nemo"])
def test_every_operator_set(tmp_path: Path, form: str, opset: int) -> None:
    path = write_public_model(tmp_path / "public.onnx", form, opset=opset)
    assert join(path, tmp_path / "ours.onnx") > 0.99999


def test_features_of_sherpa_itself(tmp_path: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "sherpa 3dspeaker")
    assert join(path, tmp_path / "sherpa.onnx", "sherpa") > 0.99999
    join(path, tmp_path / "own.onnx")
    waveform = WAVEFORMS[1]
    first, second = (
        load_onnx_network(tmp_path / f"{name}.onnx", 1)(waveform) for name in ("sherpa", "own")
    )
    assert first @ second < 0.99999
    # Other features, other embeddings, another identity.
    ids = {read_header(tmp_path / f"{name}.onnx").model_id for name in ("sherpa", "own")}
    assert len(ids) == 2


def test_a_clip_shorter_than_a_frame_is_repeated(tmp_path: Path) -> None:
    join(write_public_model(tmp_path / "public.onnx", "3dspeaker"), tmp_path / "ours.onnx")
    embed = load_onnx_network(tmp_path / "ours.onnx", 1)
    short = WAVEFORMS[0][:150]
    np.testing.assert_allclose(embed(short), embed(np.tile(short, 3)[:400]), atol=1e-6)


def test_metadata_say_how_samples_are_scaled(tmp_path: Path) -> None:
    texts = {"framework": "wespeaker", "normalize_samples": "1"}
    path = write_public_model(tmp_path / "public.onnx", "wespeaker", texts=texts)
    assert read_public_model(path).features == KaldiFeatures("hamming", 1)
    assert join(path, tmp_path / "ours.onnx") > 0.99999


def test_metadata_say_the_size_of_nemos_frames(tmp_path: Path) -> None:
    told: Any = FORMS["nemo"]["texts"]
    texts = {**told, "feat_dim": "64", "window_size_ms": "20"}
    path = write_public_model(tmp_path / "public.onnx", "nemo", num_bins=64, texts=texts)
    assert read_public_model(path).features == NemoFeatures(64, 20)
    assert join(path, tmp_path / "ours.onnx") > 0.99999


def test_origin_is_kept(tmp_path: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "sherpa wespeaker")
    write_joined(read_public_model(path), tmp_path / "ours.onnx")
    metadata = read_header(tmp_path / "ours.onnx").metadata
    assert metadata["description"] == ("imported public.onnx; a model; https://example.org/model")
    texts = {pair.key for pair in onnx.load(tmp_path / "ours.onnx").metadata_props}
    assert {"framework", "language", "voiceprint.json"} <= texts


def test_empty_texts_are_no_damage(tmp_path: Path) -> None:
    texts = {"framework": "wespeaker", "comment": "", "url": ""}
    path = write_public_model(tmp_path / "public.onnx", "sherpa wespeaker", texts=texts)
    write_joined(read_public_model(path), tmp_path / "ours.onnx")
    metadata = read_header(tmp_path / "ours.onnx").metadata
    assert metadata["description"] == "imported public.onnx"


def test_same_file_same_identity(tmp_path: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "wespeaker")
    for name in ("a", "b"):
        write_joined(read_public_model(path), tmp_path / f"{name}.onnx", description=name)
    first, second = (read_header(tmp_path / f"{name}.onnx") for name in ("a", "b"))
    assert first.model_id == second.model_id
    assert (first.metadata["description"], second.metadata["description"]) == ("a", "b")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = onnx.load(write_public_model(tmp_path / "whole.onnx", "wespeaker"))
    onnx.save(
        model, tmp_path / "public.onnx", save_as_external_data=True, location="public.data",
        size_threshold=0,
    )  # fmt: skip
    assert join(tmp_path / "public.onnx", tmp_path / "ours.onnx") > 0.99999
    (tmp_path / "public.data").unlink()
    with pytest.raises(ModelError, match=r"its weights lie in public\.data, which can't be read"):
        read_public_model(tmp_path / "public.onnx")
    # What was joined needs them no longer.
    load_onnx_network(tmp_path / "ours.onnx", 1)(WAVEFORMS[0])


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [
        ("wespeaker", {"shape": ["B", 1, "T", 80]}, "its input has 4 axes, expected 3"),
        ("wespeaker", {"num_bins": 40}, "takes frames of 40 numbers, expected 80"),
        ("nemo", {"num_bins": 64}, "takes frames of 64 numbers, expected 80"),
        ("wespeaker", {"shape": ["B", 200, 80]}, "takes 200 frames and no other number"),
        ("wespeaker", {"shape": [8, "T", 80]}, "takes 8 recordings at a time"),
        ("wespeaker", {"outputs": ["a", "b"]}, r"has 2 outputs \(a, b\), .*--output_name"),
        ("wespeaker", {"inputs": ["x"]}, "neither its metadata nor .*'x', tells .*--front_end"),
        ("wespeaker", {"inputs": ["feats", "weights"]}, "has 2 inputs"),
        ("wespeaker", {"opset": 10}, "written for the ONNX operators 10, expected 11"),
        ("wespeaker", {"texts": {"sample_rate": "8000"}}, "made for 8000 Hz"),
        ("wespeaker", {"texts": {"normalize_samples": "no"}}, "its metadata is damaged"),
        ("wespeaker", {"texts": {"voiceprint.json": "{}"}}, "a model of this toolkit already"),
        ("nemo", {"texts": {"window_type": "povey"}}, "its window_type is 'povey', expected 'ha"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(
    tmp_path: Path, form: str, changes: dict[str, Any], message: str
) -> None:
    path = write_public_model(tmp_path / "public.onnx", form, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        read_public_model(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")


def test_output_can_be_chosen(tmp_path: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "wespeaker", outputs=["a", "b"])
    assert join(path, tmp_path / "ours.onnx", output="a") > 0.99999
    assert read_header(tmp_path / "ours.onnx").embedding_size == 4
    with pytest.raises(ModelError, match="has no output 'c', expected one of a, b"):
        read_public_model(path, output="c")


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08"])
def test_refuses_what_is_no_onnx_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "public.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"no ONNX file|holds no network"):
        read_public_model(path)
    with pytest.raises(ModelError, match="no such file"):
        read_public_model(tmp_path / "missing.onnx")


def test_refuses_an_output_per_frame(tmp_path: Path) -> None:
    model = onnx.load(write_public_model(tmp_path / "public.onnx", "wespeaker"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("active", 1, ["B", 16, "T"]))
    onnx.save(model, tmp_path / "public.onnx")
    public = read_public_model(tmp_path / "public.onnx", output="active")
    with pytest.raises(ModelError, match="sounds of different lengths, expected one embedding"):
        write_joined(public, tmp_path / "ours.onnx")
    assert not (tmp_path / "ours.onnx").exists()


def test_other_embeddings_are_told(tmp_path: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "wespeaker")
    public = read_public_model(path)
    write_joined(public, tmp_path / "ours.onnx")
    other = read_public_model(path, "3dspeaker")
    with pytest.raises(ModelError, match="gives other embeddings than the two steps"):
        check_joined(other, tmp_path / "ours.onnx", WAVEFORMS)


def test_names_of_the_front_ends_are_those_that_a_header_knows() -> None:
    from utils.networks.features import PUBLIC_FRONT_ENDS

    assert tuple(FRONT_ENDS) == PUBLIC_FRONT_ENDS
