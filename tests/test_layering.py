"""The folders are the architecture: what each may import, and what docs/architecture.md draws."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(ROOT.glob("*.py"))
PACKAGES = ("utils", "voices", "service")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.stem != "__init__" and "migrations" not in path.parts
)

# Rooms from the ground up: the files of a room import from its own and those below it. A folder is
# a room, and so is each file that lies directly in utils/, since those serve several folders.
ROOMS = [
    "utils/messages utils/version",
    "utils/errors utils/files utils/workers utils/processors utils/interruption utils/arrays "
    "utils/settings",
    "utils/arguments utils/environment utils/onnx_session utils/locks utils/parquet",
    "utils/audio utils/engine",
    "utils/speaker_names",
    "utils/corpus utils/resnet",
    "utils/crops utils/verification utils/networks",
    "utils/reader utils/model",
    "utils/training utils/export utils/diarization utils/bulk_embedding",
    "voices/sql",
    "voices",
    "voices/upkeep",
    "service/settings service/logs service/metrics",
    "service/answers",
    "service/edge service/encoding",
    "service/reembedding service/inbox service/management service/configuration "
    "service/diarization service/live",
    "service/context",
    "service/freshness",
    "service/routes service/chores",
    "service/application",
    "service/start",
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}

# Whole frameworks: only these rooms import them, and only the first five when they are imported.
FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
FRAMEWORK_ROOMS = (
    "utils/resnet",
    "utils/networks",
    "utils/training",
    "utils/export",
    "utils/model",
    "utils/reader",
)
# Slow to import, or missing on some machines: only inside functions, wherever they are used.
HEAVY = {"librosa", "matplotlib", "numba", "pyaudio", "scipy", "sklearn"}

CATCH_ALL_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}


def room_of(path: Path) -> str:
    """The room of a module: its folder, or itself where it lies directly in utils/ or service/."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_room_itself = len(parts) == 2 and parts[0] != "voices"
    return "/".join(parts if is_room_itself else parts[:-1])


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(tree: ast.AST) -> set[str]:
    """Returns the full dotted names that are imported anywhere under `tree`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                "imports are absolute: from utils.audio.decode import load_audio"
            )
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def runs_at_import(tree: ast.Module) -> list[ast.stmt]:
    """Returns the statements that run at import, TYPE_CHECKING blocks left out."""

    def outside_functions(body: list[ast.stmt]) -> list[ast.stmt]:
        found = []
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            found.append(node)
            for field in ("body", "orelse", "finalbody"):
                found.extend(outside_functions(getattr(node, field, [])))
        return found

    return outside_functions(tree.body)


def imported_at_import(tree: ast.Module) -> set[str]:
    """Returns the top-level packages that importing the module imports."""
    names: set[str] = set()
    for node in runs_at_import(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported_names(node)
    return {name.split(".")[0] for name in names}


@functools.cache
def imported_modules(path: Path) -> set[Path]:
    """Returns the modules of the project's packages that a file imports, anywhere in it."""
    found = set()
    for name in imported_names(tree_of(path)):
        parts = name.split(".")
        if parts[0] not in PACKAGES:
            continue
        places = [
            ROOT.joinpath(*parts[:end]).with_suffix(".py") for end in (len(parts) - 1, len(parts))
        ]
        modules = [
            place for place in places if len(place.parts) > len(ROOT.parts) and place.is_file()
        ]
        assert modules or "migrations" in parts, f"{path.name} imports {name}, which does not exist"
        found.update(modules)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_modules_import_only_their_own_room_and_lower_ones() -> None:
    rooms = {room_of(path) for path in MODULES}
    assert rooms <= set(FLOOR_OF), "give each its place in ROOMS and in docs/architecture.md"
    upwards = {
        f"{name_of(path)} imports {name_of(imported)}"
        for path in MODULES
        for room in [room_of(path)]
        for imported in imported_modules(path)
        if room_of(imported) != room and FLOOR_OF[room_of(imported)] >= FLOOR_OF[room]
    }
    assert upwards == set()


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {path: imported_modules(path) for path in MODULES}
    while graph:
        free = [module for module, imports in graph.items() if not imports & graph.keys()]
        assert free, f"a circle among {sorted(map(name_of, graph))}"
        for module in free:
            del graph[module]


def packages_of(path: Path) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    return {name.split(".")[0] for name in imported_names(tree_of(path))}


def test_no_module_imports_a_script() -> None:
    scripts = {script.stem for script in SCRIPTS}
    assert [name_of(path) for path in MODULES if packages_of(path) & scripts] == []


def test_most_rooms_do_without_frameworks() -> None:
    others = [path for path in MODULES if room_of(path) not in FRAMEWORK_ROOMS]
    assert [name_of(path) for path in others if packages_of(path) & FRAMEWORKS] == []


def test_heavy_packages_are_imported_inside_functions() -> None:
    for path in MODULES + SCRIPTS:
        is_script = path.parent == ROOT
        banned = HEAVY if not is_script and room_of(path) in FRAMEWORK_ROOMS else HEAVY | FRAMEWORKS
        assert not imported_at_import(tree_of(path)) & banned, name_of(path)


def test_nothing_is_done_at_import() -> None:
    for path in MODULES + SCRIPTS:
        for node in tree_of(path).body:
            main_guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            loop = isinstance(node, ast.For | ast.While | ast.With)
            is_quiet = main_guard or not (call or loop)
            assert is_quiet, f"{name_of(path)}:{node.lineno} runs at import"


def test_no_module_is_a_catch_all() -> None:
    assert not {path.stem for path in MODULES} & CATCH_ALL_NAMES


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_script_is_its_own_summary(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    assert f"python {path.name}" in docstring, "the docstring shows one runnable example"
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions


def test_picture_of_the_architecture_shows_the_imports_of_the_folders() -> None:
    """Each line `room -> rooms` of docs/architecture.md names the imports, no more, no less."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = {
        match[1]: set(match[2].replace(",", " ").split()) - {"(nothing)"}
        for match in re.finditer(
            r"^((?:utils|voices|service)\b[a-z_/]*) +-> +(.+)$", text, re.MULTILINE
        )
    }
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        rooms = {room_of(imported) for imported in imported_modules(path)} - {room_of(path)}
        imports.setdefault(room_of(path), set()).update(rooms)
    # Errors, files and arrays serve everybody: drawing them would say nothing.
    everywhere = set(" ".join(ROOMS[:3]).split())
    expected = {
        room: rooms - everywhere for room, rooms in imports.items() if room not in everywhere
    }
    assert drawn == expected


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_docstrings_only(package: str) -> None:
    for path in (ROOT / package).rglob("__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert len(tree.body) == 1, path
        assert ast.get_docstring(tree), path


HELP_PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {name.split(".")[0] for name in sys.modules} & set(BANNED)
print("heavy:", sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_help_is_instant_and_is_the_docstring(path: Path) -> None:
    probe = HELP_PROBE.replace("BANNED", repr(sorted(FRAMEWORKS | HEAVY)))
    result = subprocess.run(
        [sys.executable, "-c", probe, str(path)],
        capture_output=True,
        cwd=ROOT,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT), "PATH": ""},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith("heavy: []\n")
    first_line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[
        0
    ]
    assert " ".join(first_line.split()) in " ".join(result.stdout.split())


# The checks above are only as good as the reading of the imports.


def test_imported_names_finds_imports_inside_functions() -> None:
    tree = ast.parse(
        "import os\ndef f():\n    from keras import ops\n    import utils.audio.decode\n"
    )
    assert imported_names(tree) == {"os", "keras.ops", "utils.audio.decode"}


def test_imported_at_import_looks_into_classes_and_try_but_not_functions() -> None:
    tree = ast.parse(
        "import os\n"
        "try:\n    import a.b\nexcept ImportError:\n    pass\n"
        "class C:\n    import d\n    def f(self):\n        import e\n"
        "if TYPE_CHECKING:\n    import g\n"
    )
    assert imported_at_import(tree) == {"os", "a", "d"}
