"""tools/setup.sh, on machines made of stubs: every program it may call only notes the call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COREUTILS = [
    "bash", "cat", "cksum", "cp", "dirname", "env", "grep", "ls", "mkdir", "sed", "tr",
]  # fmt: skip

if shutil.which("bash") is None or os.name == "nt":
    pytest.skip("the set-up script needs bash", allow_module_level=True)

# The Python of a machine and of its .venv. The answers depend on files in $MACHINE.
PYTHON_STUB = """#!/usr/bin/env bash
case "$*" in
  "-c import sys; sys.exit"*) [ ! -e "$MACHINE/python-too-old" ] ;;
  *"import ensurepip"*) [ ! -e "$MACHINE/no-ensurepip" ] ;;
  *Python.h*) [ ! -e "$MACHINE/no-headers" ] ;;
  *"import pyaudio"*) [ -e "$MACHINE/pyaudio-installed" ] ;;
  "--version"|"-VV") cat "$MACHINE/version" ;;
  "-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "venv" >> "$MACHINE/log" ;;
  *"pip install"*pyaudio*)
    echo "pip pyaudio" >> "$MACHINE/log"
    if [ -e "$MACHINE/portaudio-installed" ]; then echo > "$MACHINE/pyaudio-installed"
    else echo "portaudio.h: No such file or directory"; exit 1; fi ;;
  *"pip install"*)
    all="$*"; echo "pip ${all#*-q }" >> "$MACHINE/log"
    [ ! -e "$MACHINE/no-network" ] ;;
esac
"""

GCC_STUB = """#!/usr/bin/env bash
[ -e "$MACHINE/portaudio-installed" ]
"""

# Both apt-get and dnf; what it installs appears.
MANAGER_STUB = """#!/usr/bin/env bash
echo "NAME $*" >> "$MACHINE/log"
if [ -e "$MACHINE/no-network" ]; then exit 100; fi
case "$*" in *install*portaudio*) echo > "$MACHINE/portaudio-installed" ;; esac
"""

SUDO_STUB = """#!/usr/bin/env bash
echo "sudo" >> "$MACHINE/log"
if [ "$1" = -n ]; then shift; fi
exec "$@"
"""


class Machine:
    """A machine with a project's clone on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.project = folder / "project"
        self.bin.mkdir()
        (self.project / "tools").mkdir(parents=True)
        for file in [*(path.name for path in ROOT.glob("requirements*.txt")), "tools/setup.sh"]:
            shutil.copy(ROOT / file, self.project / file)
        for program in COREUTILS:
            (self.bin / program).symlink_to(shutil.which(program))
        self.add("python3", PYTHON_STUB)
        self.add("uname", "#!/usr/bin/env bash\necho Linux\n")
        self.note("version", "Python 3.12.1")
        self.user("0")

    def add(self, name: str, stub: str) -> None:
        path = self.bin / name
        path.write_text(stub.replace("NAME", name), encoding="utf-8")
        path.chmod(0o755)

    def user(self, uid: str) -> None:
        self.add("id", f"#!/usr/bin/env bash\necho {uid}\n")

    def note(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text + "\n", encoding="utf-8")

    def setup(self, *args: str, status: int = 0, **environment: str) -> tuple[list[str], str]:
        """Runs the script; returns what it called, and what it said."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        result = subprocess.run(
            ["bash", str(self.project / "tools" / "setup.sh"), *args],
            env={"PATH": str(self.bin), "MACHINE": str(self.folder), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert result.returncode == status, result.stderr
        assert result.stdout == ""
        calls = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return calls, result.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with Python 3.12, and nothing else."""
    return Machine(tmp_path)


@pytest.fixture
def debian(machine: Machine) -> Machine:
    """A bare Debian as root: Python without venv and headers."""
    machine.add("apt-get", MANAGER_STUB)
    return machine


def test_fresh_debian_gets_everything_and_a_second_call_does_nothing(debian):
    debian.note("no-headers")
    calls, _ = debian.setup()
    assert calls == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends portaudio19-dev gcc libc6-dev python3-dev",
        "venv",
        "pip -r .venv/requirements-no-microphone.txt",
        "pip pyaudio",
    ]
    assert debian.setup() == ([], "")


def test_tests_need_more_and_include_what_the_scripts_need(debian):
    calls, _ = debian.setup("--dev")
    for package in ["portaudio19-dev", "pulseaudio", "pulseaudio-utils", "ffmpeg"]:
        assert package in calls[1].split()
    assert "pip -r .venv/requirements-no-microphone.txt -r requirements-dev.txt" in calls
    assert debian.setup() == ([], "")


def test_only_the_packages_for_the_microphone_are_apart(debian):
    debian.setup()
    installed = (debian.project / ".venv/requirements-no-microphone.txt").read_text("utf-8")
    full = (ROOT / "requirements.txt").read_text("utf-8")
    assert "pyaudio" in full
    # Files that a requirements file names are looked for in its own folder.
    here = {line.replace("-r ../", "-r ") for line in installed.splitlines()}
    assert set(full.splitlines()) - here == {
        line for line in full.splitlines() if line.startswith("pyaudio")
    }
    assert "-r ../requirements-service.txt" in installed.splitlines()


@pytest.mark.parametrize("level", ["infer", "service"])
def test_using_the_model_takes_less(debian, level):
    calls, said = debian.setup(f"--{level}")
    assert f"pip -r requirements-{level}.txt" in calls
    assert "TensorFlow" not in said
    assert debian.setup(f"--{level}") == ([], "")
    calls, _ = debian.setup()
    assert calls == ["pip -r .venv/requirements-no-microphone.txt"]
    assert debian.setup(f"--{level}") == ([], "")


def test_changed_requirements_of_a_lower_level_concern_the_higher_ones(debian):
    debian.setup("--service")
    with (debian.project / "requirements-infer.txt").open("a", encoding="utf-8") as file:
        file.write("another-package\n")
    assert debian.setup("--infer")[0] == ["pip -r requirements-infer.txt"]
    assert debian.setup("--service")[0] == ["pip -r requirements-service.txt"]


def test_browser_is_installed_for_the_tests_alone(debian):
    wanted = "apt-get install -y -qq --no-install-recommends chromium chromium-driver"
    assert wanted not in debian.setup()[0]
    assert wanted in debian.setup("--dev")[0]


def test_a_release_without_a_browser(debian):
    refusal = 'case "$*" in *chromium*) exit 100 ;; esac\n'
    debian.add("apt-get", MANAGER_STUB + refusal)
    calls, said = debian.setup("--dev")
    assert "no chromium chromium-driver here: the tests of the web page are skipped" in said
    assert "pip -r .venv/requirements-no-microphone.txt -r requirements-dev.txt" in calls


@pytest.mark.parametrize("kind", ["", "-service", "-infer"])
def test_changed_requirements_are_installed_again(debian, kind):
    debian.setup()
    with (debian.project / f"requirements{kind}.txt").open("a", encoding="utf-8") as file:
        file.write("another-package\n")
    calls, _ = debian.setup()
    assert calls == ["pip -r .venv/requirements-no-microphone.txt"]


def test_changed_dev_requirements_concern_only_the_tests(machine):
    machine.setup("--dev")
    with (machine.project / "requirements-dev.txt").open("a", encoding="utf-8") as file:
        file.write("another-package\n")
    calls, _ = machine.setup()
    assert not any("-r" in call for call in calls)
    calls, _ = machine.setup("--dev")
    assert "pip -r .venv/requirements-no-microphone.txt -r requirements-dev.txt" in calls


def test_without_portaudio_only_the_microphone_is_missing(machine):
    calls, said = machine.setup()
    assert calls == ["venv", "pip -r .venv/requirements-no-microphone.txt", "pip pyaudio"]
    assert "install PortAudio with its headers, a C compiler" in said
    assert "the microphone won't work; all else does" in said
    assert "portaudio.h" in (machine.project / ".venv/pyaudio.log").read_text("utf-8")


def test_pyaudio_is_built_as_soon_as_portaudio_is_there(machine):
    machine.setup()
    assert machine.setup()[0] == []
    machine.note("portaudio-installed")
    machine.add("gcc", GCC_STUB)
    assert machine.setup()[0] == ["pip pyaudio"]
    assert machine.setup() == ([], "")


def test_other_users_go_through_sudo(debian):
    debian.user("1000")
    debian.add("sudo", SUDO_STUB)
    calls, _ = debian.setup()
    assert calls[:3] == ["sudo", "apt-get update -qq", "sudo"]
    assert calls[3].startswith("apt-get install")


def test_without_root_and_sudo_it_says_what_to_install(debian):
    debian.user("1000")
    calls, said = debian.setup()
    assert not any(call.startswith("apt-get") for call in calls)
    assert "have somebody run: apt-get install portaudio19-dev gcc libc6-dev" in said


def test_system_packages_that_cannot_be_had_stop_nothing(debian):
    debian.add("gcc", GCC_STUB)
    debian.note("no-headers")
    debian.add("apt-get", "#!/usr/bin/env bash\nexit 100\n")
    calls, said = debian.setup()
    assert calls == ["venv", "pip -r .venv/requirements-no-microphone.txt", "pip pyaudio"]
    assert "that failed; run it by hand: apt-get install portaudio19-dev python3-dev" in said


def test_fedora_has_its_own_names(machine):
    machine.add("dnf", MANAGER_STUB)
    machine.note("no-headers")
    calls, _ = machine.setup()
    assert calls[0] == "dnf install -y -q portaudio-devel gcc python3-devel"


def test_homebrew_installs_portaudio_only(machine):
    machine.add("brew", MANAGER_STUB + 'if [ "$1" = --prefix ]; then echo "$MACHINE/brew"; fi\n')
    calls, _ = machine.setup()
    assert "brew install -q portaudio" in calls


def test_unfinished_install_is_an_error_and_is_done_again(debian):
    debian.setup()
    shutil.rmtree(debian.project / ".venv")
    debian.note("no-network")
    debian.setup(status=1)
    (debian.folder / "no-network").unlink()
    assert "pip -r .venv/requirements-no-microphone.txt" in debian.setup()[0]


def test_broken_environment_is_made_again(debian):
    debian.setup()
    (debian.project / ".venv/bin/python").write_text("#!/no/such/interpreter\n", encoding="utf-8")
    assert "venv" in debian.setup()[0]


def test_another_python_installs_again(debian):
    debian.setup()
    debian.note("version", "Python 3.13.0")
    assert "pip -r .venv/requirements-no-microphone.txt" in debian.setup()[0]


def test_python_without_a_supported_version_is_an_error(machine):
    machine.note("python-too-old")
    _, said = machine.setup(status=1)
    assert "no Python 3.10 to 3.13 found" in said


def test_python_can_be_chosen(machine):
    (machine.bin / "python3").rename(machine.bin / "my-python")
    assert machine.setup(PYTHON="my-python")[0][0] == "venv"


def test_mirror_is_used(machine):
    calls, _ = machine.setup(MIRROR="https://mirror.example/simple/")
    assert calls[1] == "pip --index-url https://mirror.example/simple/ -r .venv/" + (
        "requirements-no-microphone.txt"
    )


def test_unknown_option_is_refused(machine):
    assert "usage" in machine.setup("--everything", status=2)[1]
