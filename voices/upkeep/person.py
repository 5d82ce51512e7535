"""Everything about one person as a zip, for whoever asks what is stored (GDPR, article 15)."""

import json
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from utils.errors import DatabaseError, UnknownSpeakerError
from utils.files import atomic_path
from voices.inbox_sound import find_files, sha256_of
from voices.sql.audio import suffix_of
from voices.sql.cipher import unseal
from voices.sql.rows import from_bytes
from voices.sql.store import SqlVoiceStore
from voices.sql.transfer import SpeakerRows


def export_person(
    database: SqlVoiceStore, name: str, path: Path, audio_db: str | None = None
) -> int:
    """Writes `person.json` and the recordings into a zip; returns how many files it has.

    Args:
        database: The store of the speaker's group.
        name: Who.
        path: The zip; what is there is replaced in the end.
        audio_db: The service's folder, for recordings whose sound is there.

    Raises:
        UnknownSpeakerError: If nobody has the name.
        DatabaseError: If the database fails or the file cannot be written; DamagedVoiceError if
            what is stored was changed from outside.
    """
    found = database.transfer.read(database.speaker_id(name))
    if found is None:
        raise UnknownSpeakerError(f"nobody named {name} in {database.name}")
    sounds = _sounds(found, database, audio_db)
    lines = database.audit_log.about(found.speaker.row["name"], database.group)
    document = {
        "exported_at": datetime.now(timezone.utc).isoformat(),
        "speaker": _plain(found.speaker.row, ("id", "name", "created_at", "updated_at")),
        "group": database.group,
        "recordings": [
            {
                **_plain(record.row, ("id", "created_at", "speech_s", "duration_s", "file_name")),
                "sound": sorted(each for each in sounds if sounds[each][0] == record.id),
                "embeddings": {
                    row["model_id"]: from_bytes(
                        unseal(record.key, row["embedding"] or b"", f"{record.id} embedding")
                    ).tolist()
                    for row in found.embeddings
                    if row["recording_id"] == record.id
                },
                "files_of_audio_db": sorted(
                    row["path"] for row in found.inbox if row["recording_id"] == record.id
                ),
            }
            for record in found.recordings
        ],
        # Of these there is nothing else that anybody could read.
        "uploads_remembered": [
            moment.isoformat() for moment in database.uploads.times(found.speaker.id)
        ],
        "audit_log": [_plain(vars(line), tuple(vars(line))) for line in lines],
    }
    try:
        with atomic_path(path) as temporary:
            temporary.touch(mode=0o600)
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
                text = json.dumps(document, ensure_ascii=False, indent=1)
                file.writestr("person.json", text)
                for place, (_, content) in sounds.items():
                    file.writestr(place, content)
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
    return 1 + len(sounds)


def _sounds(
    found: SpeakerRows, database: SqlVoiceStore, audio_db: str | None
) -> dict[str, tuple[str, bytes]]:
    """Returns the place of each recording in the zip, its id, and its content."""
    sounds = {}
    keys = {record.id: record.key for record in found.recordings}
    for row in found.audio:
        id_ = row["recording_id"]
        content = unseal(keys[id_], row["content"] or b"", f"{id_} audio")
        sounds[f"recordings/{id_}{suffix_of(content)}"] = (id_, content)
    if audio_db is not None:
        for id_, (path, sha256) in find_files(audio_db, database.inbox_files).items():
            if id_ in keys and sha256_of(path) == sha256:
                sounds[f"recordings/{id_}{path.suffix.lower()}"] = (id_, path.read_bytes())
    return sounds


def _plain(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns some values of a row as JSON has them."""
    return {
        name: row[name].isoformat() if isinstance(row[name], datetime) else row[name]
        for name in names
    }
