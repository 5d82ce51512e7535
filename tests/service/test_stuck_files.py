"""A file that cannot be removed or renamed holds up its speaker, and nobody else."""

from pathlib import Path

import pytest

from service.folder_record import RECORD_NAME
from tests.support.service_client import check_problem, files, running, speech
from tests.support.synthetic_voices import synthetic_speech, write_wav


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "audio_db"
    write_wav(folder / "Ann.wav", synthetic_speech(1, 0))
    write_wav(folder / "Ann" / "2.wav", synthetic_speech(1, 1))
    for number, name in enumerate(("Ben", "Eve", "Tim"), start=2):
        write_wav(folder / f"{name}.wav", synthetic_speech(number, 0))
    return folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/v.sqlite3"


def visible(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.wav"))


def refuse(patch: pytest.MonkeyPatch, method: str, stuck: Path) -> None:
    """Lets a file or folder be neither removed nor renamed."""
    function = getattr(Path, method)

    def check(path: Path, *arguments: object, **options: object) -> object:
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *arguments, **options)

    patch.setattr(Path, method, check)


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_enrolled_again", [False, True])
def test_a_deletion_waits_for_its_file_alone(
    folder: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    is_restarted: bool,
    is_enrolled_again: bool,
) -> None:
    voice = speech(1, 4)
    with running(url, audio_db=folder) as client:
        with monkeypatch.context() as patch:
            refuse(patch, "unlink", folder / "Ann" / "2.wav")
            for _ in range(2):
                answer = client.delete("/v1/speakers/Ann")
                check_problem(answer, 503, "files")
                assert "2.wav" not in answer.text and answer.headers["Retry-After"]
            assert client.delete("/voiceprint/Ann").status_code == 503
            check_problem(client.get("/v1/speakers/Ann"), 404, "unknown-speaker")
            assert client.patch("/v1/speakers/Ben", json={"name": "Bo"}).status_code == 200
            path = "/v1/speakers/Eve/recordings"
            assert client.put(path, files=files(speech(3, 9))).status_code == 200
            assert client.delete("/v1/speakers/Tim").status_code == 200
            assert visible(folder) == ["Ann/2.wav", "Bo.wav"]
            if is_enrolled_again:
                answer = client.post("/v1/speakers", data={"name": "Ann"}, files=files(voice))
                assert answer.status_code == 201
            if is_restarted:
                with running(url, audio_db=folder) as other:
                    assert other.get("/v1/speakers").json()["total"] == 2 + is_enrolled_again
                    voices = other.app.state.service.folder
                    ((name, reason),) = voices.rejected
                    assert name == "Ann" and "2.wav: cannot be removed" in reason
        if is_restarted:
            with running(url, audio_db=folder) as other:
                assert other.get("/v1/speakers").json()["total"] == 2 + is_enrolled_again
                assert visible(folder) == ["Bo.wav"]
        answer = client.delete("/v1/speakers/Ann")
        if is_restarted and not is_enrolled_again:
            check_problem(answer, 404, "unknown-speaker")
        else:
            removed = answer.json()["removed"]
            assert removed["recordings"] == is_enrolled_again
            assert (f"{folder.name}/Ann/2.wav" in removed["files"]) == (not is_restarted)
        assert visible(folder) == ["Bo.wav"]
        check_problem(client.delete("/v1/speakers/Ann"), 404, "unknown-speaker")
    with running(url, audio_db=folder) as client:
        assert client.get("/v1/speakers").json()["total"] == 2
    assert "//intent" not in (folder / RECORD_NAME).read_text(encoding="utf-8")


def test_a_renaming_that_cannot_be_undone_waits_alone(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(url, audio_db=folder) as client:
        before = client.get("/v1/speakers/Ann").json()["recordings"]
        with monkeypatch.context() as patch:
            refuse(patch, "rename", folder / "Ann")
            refuse(patch, "rename", folder / "Anna.wav")
            for name in ("Anna", "Anne"):
                answer = client.patch("/v1/speakers/Ann", json={"name": name})
                check_problem(answer, 503, "files")
            check_problem(client.delete("/v1/speakers/Ann"), 503, "files")
            assert visible(folder)[:2] == ["Ann/2.wav", "Anna.wav"]
            assert client.delete("/v1/speakers/Tim").status_code == 200
            with running(url, audio_db=folder) as other:
                assert other.get("/v1/speakers/Ann").json()["recordings"] == before
                assert other.get("/v1/speakers").json()["total"] == 3
        answer = client.patch("/v1/speakers/Ann", json={"name": "Anne"})
        assert [each["id"] for each in answer.json()["recordings"]] == [e["id"] for e in before]
        assert visible(folder) == ["Anne.wav", "Anne/2.wav", "Ben.wav", "Eve.wav"]
    with running(url, audio_db=folder) as client:
        assert len(client.get("/v1/speakers/Anne").json()["recordings"]) == 2
        assert client.get("/v1/speakers").json()["total"] == 3


def test_files_that_wait_are_not_deleted_with_a_name_that_nobody_has(
    folder: Path, url: str
) -> None:
    with running(url, audio_db=folder) as client:
        write_wav(folder / "Zoe.wav", synthetic_speech(1, 3))
        check_problem(client.delete("/v1/speakers/Zoe"), 404, "unknown-speaker")
    assert "Zoe.wav" in visible(folder)
