"""The commands of manage_voices.py: each takes the options, prints, and returns the exit status."""

import argparse
import sys
from typing import Any

from utils.errors import EXIT_USER_ERROR
from utils.messages import translate
from voices.inbox_sound import find_sound
from voices.store import open_database


def embed(args: argparse.Namespace) -> int:
    """Embeds all recordings with kept sound by a model; names those that have none."""
    from utils.model.encoder import SpeakerEncoder
    from voices.sql.other_models import Reembedding

    encoder = SpeakerEncoder(args.model_path, args.num_threads)
    database: Any = open_database(args.database, encoder, create=False)
    files = find_sound(args.audio_db, database.inbox_files) if args.audio_db else {}
    work = Reembedding(database.other_models, encoder, files)
    work.run()
    for recording, reason in work.rejected:
        print(translate(f"warning: {recording} is left out: {reason}"), file=sys.stderr)
    print(translate(f"{work.num_done} recordings embedded by {encoder.model_path}"))
    return EXIT_USER_ERROR if work.rejected else 0
