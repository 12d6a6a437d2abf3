"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "pathpipe").rglob("*.py"))
MAX_FILE = 320
MAX_FUNCTION = 60
BULKHEADS = {"execution/unit.py", "cli/app.py"}  # cli/app.py only re-raises what it doesn't know
DRAWERS = ("util", "common", "misc", "helper", "manager", "processor")


def _name(path: Path) -> str:
    return path.relative_to(ROOT / "pathpipe").as_posix()


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_file_follows_the_rules(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE, f"more than {MAX_FILE} lines: does it still hold one idea?"
    assert not any(word in path.stem for word in DRAWERS), "a drawer, not a noun"
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION, f"{node.name} is longer than {MAX_FUNCTION}"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in _BROAD)
            assert not broad or _name(path) in BULKHEADS, f"line {node.lineno}: catches everything"


_BROAD = {"Exception", "BaseException"}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_imports_flow_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pathpipe.cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'timm', 'openslide', 'tiffslide', 'cv2', 'pandas', 'sklearn', 'matplotlib', 'h5py'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stdout + done.stderr


def test_what_runs_no_encoder_does_without_its_libraries() -> None:
    code = (
        "import sys\n"
        "import pathpipe.stages.predict, pathpipe.stages.train\n"
        "print('loaded:', sorted({'timm', 'torchvision'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["loaded: []"], done.stdout + done.stderr


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home, here = str(Path.home()), str(ROOT)
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix in (".py", ".md", ".yaml", ".toml", ".j2", ""):
            text = path.read_text(errors="ignore")
            assert f"{home}/" not in text and here not in text, name


def test_names_for_notebooks_load_when_used() -> None:
    import pathpipe

    assert set(dir(pathpipe)) == set(pathpipe.__all__)
    for name in pathpipe.__all__:
        if name != "__version__":
            assert getattr(pathpipe, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute `nothing`"):
        _ = pathpipe.nothing
