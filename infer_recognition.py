"""Enrols speakers and tells who speaks, from the microphone or from files.

python infer_recognition.py      the menu: 0 enrols, 1 recognises, 2 lists, 3 deletes, q leaves
python infer_recognition.py --register 夜雨飘零 1.wav 2.wav
python infer_recognition.py --recognize audio/a_1.wav      status 1 if it is nobody enrolled
python infer_recognition.py --list              --delete 夜雨飘零 removes a speaker
python infer_recognition.py --live              who is speaking now, until Enter
"""

import argparse
from functools import partial

from utils.arguments import channel, make_parser, positive_int, print_arguments, score
from utils.arrays import FloatArray
from utils.audio.recording import Recording
from utils.diarization.voices import note_voices
from utils.errors import run_script
from utils.model.encoder import SpeakerEncoder
from utils.model.header import choose_threshold, read_header
from utils.speaker_names import clean_name
from utils.verification.channel_voices import note_channels
from utils.verification.cohort import SCORE_NORMS
from utils.verification.verdict import verdict
from voices import menu
from voices.live_session import MICROPHONE, follow
from voices.menu import load_audio_db
from voices.store import VoiceStore, choose_target, open_database


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--audio_db", help="folder of enrolled voices: NAME.wav and NAME/*.wav (audio_db)")
    add("--database", help="sqlite:///PATH or postgresql://... (docs/database.md)")
    add("--keep_audio", action="store_true", help="for --database: store the sound too")
    add("--model_path", help="speaker model")
    add("--threshold", type=score, help="least score of a match (default: strict, of the model)")
    add("--score_norm", choices=SCORE_NORMS, default="none", help="asnorm: by the model's cohort")
    add("--channel", type=channel, default="mix", help="of files: left, right, mix, 1, 2, ...")
    add("--microphone", metavar="NAME|INDEX", help="what to record with (default: the system's)")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    add("--real_time", action="store_true", help="for --live FILE: as fast as it was spoken")
    add("--strict_single_speaker", action="store_true", help="refuse recordings of several voices")
    add("--if_exists", choices=["ask", "add", "replace"], default="ask", help="for --register")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--register", nargs="+", metavar=("NAME", "FILE"), help="enrol a speaker from files")
    add("--recognize", nargs=1, metavar="FILE", help="tell who speaks in a file")
    add("--list", action="store_true", help="list the enrolled speakers")
    add("--delete", metavar="NAME", help="delete a speaker with all recordings")
    add("--list_microphones", action="store_true", help="list the microphones")
    add("--live", nargs="?", const=MICROPHONE, metavar="FILE", help="follow who is speaking: the "
        "microphone, a file, or 16-bit samples of 16 kHz on standard input (-)")  # fmt: skip
    args = parser.parse_args(argv)
    if args.register and len(args.register) < 2:
        parser.error("--register: received a name alone, expected a name and at least one file")
    args.database, args.audio_db = choose_target(args.database, args.audio_db)
    return args


def infer(encoder: SpeakerEncoder, waveform: FloatArray) -> FloatArray:
    """Returns the embedding of a recording, unit length, shape `(embedding_size,)`."""
    return encoder.embed_waveform(waveform)


def register(
    database: VoiceStore, name: str, waveforms: list[FloatArray], replace: bool = False
) -> list[object]:
    """Saves recordings in the database and takes their embeddings into the comparison."""
    return list((database.replace if replace else database.add)(name, *waveforms))


def recognition(
    database: VoiceStore, encoder: SpeakerEncoder, threshold: float, waveform: FloatArray
) -> tuple[str | None, float]:
    """Compares a recording with all speakers: the best of them, or None below the threshold."""
    name, best = database.rank(infer(encoder, waveform))[0]
    return (name if verdict(best, threshold) else None), best


def main(argv: list[str] | None = None) -> int:
    """Does what one option says, or runs the menu."""
    args = parse_args(argv)
    if menu.list_or_delete(args):
        return 0
    header = read_header(args.model_path).with_score_norm(args.score_norm)
    args.model_path = header.path
    args.threshold = choose_threshold(header, args.threshold, is_strict=True)
    shown = ["audio_db", "model_path", "threshold"]
    print_arguments(args, shown + (["score_norm"] if header.cohort else []))
    name = clean_name(args.register[0]) if args.register else ""
    paths = args.recognize or (args.register or [])[1:]
    recordings = [Recording.load(path, channel=args.channel) for path in paths]
    waveforms = [recording.waveform for recording in recordings]
    encoder = SpeakerEncoder(header, args.num_threads)
    print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    note_channels(encoder, recordings, args.threshold)
    note_voices(encoder, recordings, args.strict_single_speaker)
    database = open_database(args.database, encoder, keep_audio=args.keep_audio)
    if args.register:
        return menu.enrol(database, register, name, waveforms, args.if_exists)
    load_audio_db(database)
    recognise = partial(recognition, database, encoder, args.threshold)
    if args.live is not None:
        return follow(args, encoder, database, register)
    if args.recognize:
        return menu.print_match(*recognise(waveforms[0]))
    menu.Menu(database, register, recognise, args.microphone).run()
    return 0


if __name__ == "__main__":
    run_script(main)
