"""The dependencies point one way, and nothing heavy happens before the options are parsed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(ROOT.glob("*.py"))
MODULES = sorted(path for path in (ROOT / "utils").glob("*.py") if path.stem != "__init__")
SERVICE = sorted(path for path in (ROOT / "service").glob("*.py") if path.stem != "__init__")

# A module may import from its own layer and from lower ones, never in a circle. A new module gets
# its place here and in docs/architecture.md.
LAYERS = {
    0: ["errors", "files", "interruption", "workers"],
    1: [
        "arguments",
        "audio",
        "audio_bytes",
        "augment",
        "batches",
        "calibration",
        "conversion",
        "data_list",
        "embedding_cache",
        "embedding_cipher",
        "embedding_store",
        "integrity",
        "layouts",
        "metrics",
        "plots",
        "quality",
        "scoring",
        "sound_folder",
        "spectrogram",
        "speaker_names",
        "speech",
        "sql_audio",
        "sql_engine",
        "sql_records",
        "sql_schema",
        "sql_search",
        "sql_voices",
        "teacher",
        "validation",
        "vector_index",
        "voiceprints",
    ],
    2: [
        "devices",
        "export_runner",
        "export_tensorflow",
        "losses",
        "model_file",
        "onnx_graph",
        "onnx_model",
        "onnx_quantization",
        "reader",
        "resnet",
        "trainer",
        "training_options",
        "views",
    ],
    3: [
        "contrast",
        "database",
        "datasets",
        "encoder",
        "evaluation",
        "export_formats",
        "menu",
        "recorder",
        "sql_database",
        "sql_store",
        "training",
        "voice_move",
    ],
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}

# Whole frameworks: layers 0 and 1 never import them, not even inside a function.
FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
# Slow to import, or missing on some machines: only inside functions, wherever they are used.
HEAVY = {"librosa", "matplotlib", "numba", "pyaudio", "scipy", "sklearn"}

MAX_MODULE_LINES = 400
MAX_SCRIPT_LINES = 100
CATCH_ALL_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}


def imported_names(tree: ast.AST) -> set[str]:
    """Returns the full dotted names that are imported anywhere under `tree`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: from utils.audio import load_audio"
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


def utils_imports(path: Path) -> set[str]:
    """Returns the modules of utils/ that the file imports, anywhere in it."""
    stems = {module.stem for module in MODULES}
    found = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "utils" and len(parts) > 1:
            assert parts[1] in stems, f"{path.name} imports {name}, which does not exist"
            found.add(parts[1])
    return found


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_imports_only_its_own_layer_and_lower_ones(path: Path) -> None:
    assert path.stem in LAYER_OF, f"give {path.name} its place in LAYERS and in the architecture"
    for imported in utils_imports(path):
        assert LAYER_OF[imported] <= LAYER_OF[path.stem], f"{path.stem} imports {imported}"


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {path.stem: utils_imports(path) for path in MODULES}
    while graph:
        free = [module for module, imports in graph.items() if not imports & graph.keys()]
        assert free, f"a circle among {sorted(graph)}"
        for module in free:
            del graph[module]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_a_script(path: Path) -> None:
    scripts = {script.stem for script in SCRIPTS}
    imported = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    assert not {name.split(".")[0] for name in imported} & scripts


@pytest.mark.parametrize("path", [p for p in MODULES if LAYER_OF.get(p.stem, 9) <= 1], ids=name_of)
def test_lower_layers_do_without_frameworks(path: Path) -> None:
    imported = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    assert not {name.split(".")[0] for name in imported} & FRAMEWORKS


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_of_utils_knows_the_service(path: Path) -> None:
    imported = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    assert "service" not in {name.split(".")[0] for name in imported}


def test_modules_of_the_service_import_each_other_in_no_circle() -> None:
    stems = {path.stem for path in SERVICE}
    graph = {}
    for path in SERVICE:
        names = imported_names(ast.parse(path.read_text(encoding="utf-8")))
        parts = [name.split(".") for name in names]
        graph[path.stem] = {p[1] for p in parts if p[0] == "service" and p[1] in stems}
    while graph:
        free = [module for module, imports in graph.items() if not imports & graph.keys()]
        assert free, f"a circle among {sorted(graph)}"
        for module in free:
            del graph[module]


@pytest.mark.parametrize("path", MODULES + SERVICE + SCRIPTS, ids=name_of)
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    banned = HEAVY if LAYER_OF.get(path.stem) == 2 else HEAVY | FRAMEWORKS
    assert not imported_at_import(ast.parse(path.read_text(encoding="utf-8"))) & banned


@pytest.mark.parametrize("path", MODULES + SERVICE + SCRIPTS, ids=name_of)
def test_nothing_is_done_at_import(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        main_guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        loop = isinstance(node, ast.For | ast.While | ast.With)
        assert main_guard or not (call or loop), f"{path.name}:{node.lineno} runs at import"


@pytest.mark.parametrize("path", MODULES + SERVICE, ids=name_of)
def test_module_is_one_noun_long(path: Path) -> None:
    assert path.stem not in CATCH_ALL_NAMES
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_MODULE_LINES, f"{path.name} has {num_lines} lines: is it one noun?"


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_script_is_its_own_summary(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    assert num_lines <= MAX_SCRIPT_LINES, f"{path.name} has {num_lines} lines"
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree) or ""
    assert f"python {path.name}" in docstring, "the docstring shows one runnable example"
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions


def test_diagram_of_the_architecture_has_every_module_in_its_layer() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = text.split("```")[1]
    shown: dict[str, int] = {}
    layer = 4
    for line in diagram.splitlines():
        layer = int(line[0]) if line[:1].isdigit() else layer
        shown.update(dict.fromkeys(re.findall(r"[a-z][a-z_]+", line), layer))
    scripts = {path.stem: 4 for path in SCRIPTS}
    modules = {path.stem: LAYER_OF[path.stem] for path in MODULES}
    for module, place in (scripts | modules).items():
        assert shown.get(module) == place, f"the diagram has no {module} in layer {place}"


def test_utils_package_is_a_docstring_only() -> None:
    tree = ast.parse((ROOT / "utils" / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)


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
    tree = ast.parse("import os\ndef f():\n    from keras import ops\n    import utils.audio\n")
    assert imported_names(tree) == {"os", "keras.ops", "utils.audio"}


def test_imported_at_import_looks_into_classes_and_try_but_not_functions() -> None:
    tree = ast.parse(
        "import os\n"
        "try:\n    import a.b\nexcept ImportError:\n    pass\n"
        "class C:\n    import d\n    def f(self):\n        import e\n"
        "if TYPE_CHECKING:\n    import g\n"
    )
    assert imported_at_import(tree) == {"os", "a", "d"}
