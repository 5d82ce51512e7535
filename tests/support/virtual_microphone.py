"""A microphone without a sound card: PulseAudio records what is played into a null sink.

Needs the packages pulseaudio, pulseaudio-utils and libasound2-plugins. The server has a home and
a run-time folder of its own, so that it disturbs no other. By hand, to drive a script with it:

    python tests/support/virtual_microphone.py play.wav -- python infer_recognition.py
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SPEAKER = "virtual_speaker"
MICROPHONE = "virtual_microphone"
PROGRAMS = ("pulseaudio", "pactl", "paplay")
LEAD_S = 0.6  # of silence before the signal: PulseAudio loses the first 1024 samples


def missing_packages() -> str | None:
    """Says which program is not installed, or returns None if a virtual microphone can be had."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    plugins = [
        path
        for folder in (Path("/usr/lib"), Path("/usr/lib64"))
        for path in folder.glob("**/alsa-lib/libasound_module_pcm_pulse.so")
    ]
    if not plugins:
        missing.append("libasound2-plugins")
    if not missing:
        return None
    return f"{', '.join(missing)} not installed (packages pulseaudio pulseaudio-utils \
libasound2-plugins)"


class VirtualMicrophone:
    """A running PulseAudio server with one speaker whose sound is what its microphone hears."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Starts playing a wav file into the microphone and returns the player."""
        return subprocess.Popen(
            ["paplay", f"--device={SPEAKER}", str(path)],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def virtual_microphone(
    sample_rate: int = 16000, num_channels: int = 1
) -> Iterator[VirtualMicrophone]:
    """Runs a virtual microphone; programs started with its `environment` record from it."""
    with tempfile.TemporaryDirectory(prefix="voiceprint-pulse-") as folder:
        home = Path(folder)
        home.chmod(0o700)
        (home / ".asoundrc").write_text(
            "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
        )
        environment = {
            **os.environ,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "PULSE_SERVER": f"unix:{home}/pulse/native",
        }
        for name in (
            "PULSE_RUNTIME_PATH",
            "PULSE_SINK",
            "PULSE_SOURCE",
            "DBUS_SESSION_BUS_ADDRESS",
        ):
            environment.pop(name, None)
        shape = f"rate={sample_rate} channels={num_channels}"
        command = [
            "pulseaudio",
            "--daemonize=no",
            "-n",
            "--exit-idle-time=-1",
            "--log-target=stderr",
        ]
        for module in (
            "module-native-protocol-unix",
            f"module-null-sink sink_name={SPEAKER} {shape}",
            f"module-virtual-source source_name={MICROPHONE} master={SPEAKER}.monitor",
        ):
            command += ["-L", module]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_ready(server, environment, home / "log")
            yield VirtualMicrophone(home, environment)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_ready(
    server: subprocess.Popen[bytes], environment: dict[str, str], log: Path
) -> None:
    """Waits until the server answers and makes its microphone the default one."""
    command = ["pactl", "set-default-source", MICROPHONE]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        if subprocess.run(command, env=environment, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PulseAudio did not start:\n{log.read_text(errors='replace')}")


def main() -> int:
    """Runs a command while a file is played into its microphone over and over."""
    wav, separator, *command = sys.argv[1:]
    assert separator == "--", "usage: virtual_microphone.py play.wav -- command ..."
    with virtual_microphone() as microphone:
        loop = 'while true; do paplay --device="$0" "$1" || exit; done'
        player = subprocess.Popen(
            ["sh", "-c", loop, SPEAKER, wav], env=microphone.environment, start_new_session=True
        )
        try:
            return subprocess.run(command, env=microphone.environment).returncode
        finally:
            os.killpg(player.pid, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
