"""From options and environment to a running service."""

import argparse
import contextlib
import copy
import gc
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from service.edge.token_file import create_token
from service.edge.tokens import Tokens
from service.settings import (
    DEFAULT_DATABASE,
    DEFAULT_FOLDER,
    LOOPBACK,
    GroupLimits,
    ServiceError,
    Settings,
)
from utils.arguments import read_settings
from utils.audio.decode import load_audio
from utils.environment import read_variable
from utils.errors import ModelError
from utils.locks import only_process
from utils.messages import translate
from utils.verification.embedding import Encoder
from utils.verification.verdict import cosine_score
from voices.store import public_name

CLASSIC_TOKEN_NAME = "voiceprint-api"
"""Name of the token that --create_token makes, for logs and limits."""

SAMPLES = Path(__file__).resolve().parents[1] / "audio"
"""The recordings that come with the project: a_1 and a_2 are one person, b_2 is another."""

FOLDER_LOCK = ".service.lock"
"""File in audio_db that a running service holds; two would enrol and delete the same files."""

ORIGIN = re.compile(r"https?://[^/\s?#]+")
"""An origin as browsers send it; anything else would never match."""


def print_classic_token(args: argparse.Namespace) -> int:
    """Makes a token for a client of voiceprint-api, and prints it with the address to paste there.

    Raises:
        ServiceError: If there is no file to keep the token in, or it cannot be used.
    """
    if args.token_file is None:
        raise ServiceError(
            "--create_token: expected --token_file too, which keeps the token's SHA-256; for "
            "example: python serve.py --create_token --token_file tokens.txt"
        )
    token, _ = create_token(CLASSIC_TOKEN_NAME, args.token_file)
    print(translate(f"token of {CLASSIC_TOKEN_NAME}: {token}"))
    print(f"声纹接口地址: {classic_address(args.host, args.port, token)}")
    print(translate("It is shown this once; the service keeps its SHA-256 only."))
    print(
        translate(
            f"Start the service with: python serve.py --host 0.0.0.0 --token_file {args.token_file}"
        )
    )
    return 0


def classic_address(host: str, port: int, token: str) -> str:
    """Returns the address that a client of voiceprint-api is configured with.

    Such clients refuse localhost, so an address of this machine in its network stands for it and
    for "all addresses".
    """
    if host in LOOPBACK | {"0.0.0.0", "::"}:
        host = find_own_address()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/voiceprint/health?key={token}"


def find_own_address() -> str:
    """Returns this machine's address in its network, or the loopback address if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only looks up the route.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def resolve_defaults(args: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Sets the options that depend on each other or on the environment."""
    if args.database is None:
        args.database = read_variable("VOICEPRINT_DATABASE", environment) or DEFAULT_DATABASE
    if args.audio_db is None and args.database == DEFAULT_DATABASE:
        args.audio_db = DEFAULT_FOLDER
    if args.model_path is None:
        from utils.model.header import read_header

        args.model_path = read_header().path


def without_passwords(args: argparse.Namespace) -> argparse.Namespace:
    """Returns the options as they may be printed."""
    shown = copy.copy(args)
    shown.database = public_name(args.database)
    return shown


def make_settings(
    args: argparse.Namespace,
    environment: Mapping[str, str],
    groups: Mapping[str, GroupLimits] | None = None,
) -> Settings:
    """Checks the options that only the service knows; `groups` are the limits of groups.

    Raises:
        ServiceError: If the service would be open to other machines without a token, or the
            token, its file or the origin cannot be used.
    """
    token = environment.get("VOICEPRINT_TOKEN", "").strip() or None
    settings = read_settings(Settings, args, token=token, groups=groups or {})
    if settings.cors_origin is not None and not ORIGIN.fullmatch(settings.cors_origin):
        raise ServiceError(
            f"--cors_origin: received {settings.cors_origin!r}, expected one origin such as "
            "https://app.example.com, without a path or a slash at its end"
        )
    if not Tokens(settings.token, settings.token_file).are_required and not settings.is_loopback:
        raise ServiceError(
            f"--host {settings.host}: without a token the service listens on 127.0.0.1 only; "
            "set VOICEPRINT_TOKEN or give --token_file (python serve.py --new_token NAME "
            "--token_file FILE makes one)"
        )
    return settings


def serve(settings: Settings, environment: Mapping[str, str]) -> int:
    """Loads everything and serves until a signal, whose number it returns.

    Raises:
        VoiceprintError: If the port, the model, the database or the folder cannot be used.
    """
    from service.edge.server import bind_socket
    from voices.sql.cipher import read_key

    key = read_key(environment)
    with contextlib.closing(bind_socket(settings)) as bound, contextlib.ExitStack() as locked:
        return _serve(settings, key, bound, locked)


def check_model(encoder: Encoder) -> None:
    """Compares shipped recordings, so that a damaged model is found before anybody enrols.

    Without the recordings, where only the code was installed, nothing is compared.

    Raises:
        ModelError: If its embeddings are not finite, or two recordings of one person are no more
            alike than those of two people.
    """
    if not SAMPLES.is_dir():
        return
    first, second, other = (
        encoder.embed_waveform(load_audio(SAMPLES / name), name)
        for name in ("a_1.wav", "a_2.wav", "b_2.wav")
    )
    same, different = cosine_score(first, second), cosine_score(first, other)
    if not same > different:
        raise ModelError(
            f"the model fails its self-test: two recordings of one person score {same:.2f}, of two "
            f"people {different:.2f}; the file is damaged, or was trained too little: restore it, "
            "or choose another"
        )


def lock_folder(folder: str, locked: contextlib.ExitStack) -> None:
    """Takes a folder of recordings for this process until `locked` ends, or the process does.

    Raises:
        VoiceprintError: If another service has it.
    """
    try:
        file = locked.enter_context((Path(folder) / FOLDER_LOCK).open("ab"))
    except OSError:  # nothing can be written there
        return
    refusal = (
        f"{folder}: another service has taken it over; stop that one, or choose another --audio_db"
    )
    locked.enter_context(only_process(file, folder, refusal))


def _serve(
    settings: Settings, key: bytes | None, bound: socket.socket, locked: contextlib.ExitStack
) -> int:
    """Serves on a port that is taken."""
    from service.application import make_app
    from service.edge.server import run_server
    from service.inbox import Inbox
    from service.logs import configure_logs
    from utils.model.encoder import SpeakerEncoder
    from utils.model.header import read_header
    from voices.inbox_sound import printable
    from voices.sql.store import SqlVoiceStore

    configure_logs(as_json=settings.json_logs)
    header = read_header(settings.model_path).with_score_norm(settings.score_norm)
    encoder = SpeakerEncoder(header, num_threads=1)
    _ = encoder.strict_threshold  # a model without thresholds is told now
    check_model(encoder)
    print(f"==> successfully loading model {settings.model_path}.\n", flush=True)
    database = SqlVoiceStore(settings.database, encoder, key=key, keep_audio=settings.keep_audio)
    database.prepare()
    inbox = None
    if settings.audio_db is not None:
        lock_folder(settings.audio_db, locked)
        inbox = Inbox(settings.audio_db, database, encoder)
        for name in inbox.enrol_files():
            print(translate(f"Took {name} over from {settings.audio_db}."), flush=True)
    for path, reason in inbox.rejected if inbox else []:
        print(printable(translate(f"warning: {path} is left out: {reason}")), flush=True)
    app = make_app(settings, encoder, database, inbox)
    num_speakers = database.count()

    def print_addresses() -> None:
        # What is loaded now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        host, port = bound.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        print(translate(f"{num_speakers} speakers enrolled."))
        waiting, without_sound = app.state.service.reembedding.count()
        if waiting:
            print(translate(f"{waiting} recordings of another model are being embedded anew."))
        if without_sound:
            print(
                translate(
                    f"warning: {without_sound} recordings of another model cannot be compared, "
                    "their sound was not kept; GET /v1/speakers?comparable=false lists the speakers"
                )
            )
        print(translate(f"Web page:  {address}/"))
        print(translate(f"Interface: {address}/docs"))
        if not settings.is_loopback:
            print(f"声纹接口地址: {classic_address(settings.host, port, 'TOKEN')}")
        if not app.state.service.auth_required:
            print(translate("Without a token only programs of this machine can reach it."))
        print(translate("Ctrl-C stops it."), flush=True)

    try:
        return run_server(app, settings, bound, print_addresses, app.state.service.begin_stop)
    finally:
        database.close()
