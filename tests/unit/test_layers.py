"""A package imports only from strictly lower layers."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    ("config", "structures", "processes"),
    ("losses", "metrics", "routing", "balancing", "media"),
    ("kinds",),
    ("tasks", "data"),
    ("models",),
    ("distributed",),
    ("tracking",),
    ("runs",),
    ("evaluation", "planning"),
    ("train", "serving"),
    ("recipes", "testing"),
    ("finetuning",),
    ("comparing",),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imported_packages(tree: ast.AST):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "ufo_large" and len(parts) > 1:
                yield parts[1], node.lineno


def test_packages_import_from_lower_layers_only():
    wrong = []
    for path in sorted((ROOT / "ufo_large").glob("*/**/*.py")):
        package = path.relative_to(ROOT / "ufo_large").parts[0]
        for other, line in imported_packages(ast.parse(path.read_text())):
            if other != package and LEVEL[other] >= LEVEL[package]:
                text = path.read_text().splitlines()[line - 1].strip()
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {text}")
    assert not wrong, "imports from the same or a higher layer:\n" + "\n".join(wrong)


def test_only_zero_imports_deepspeed():
    users = [p for p in (ROOT / "ufo_large").rglob("*.py") if "import deepspeed" in p.read_text()]
    assert [p.name for p in users] == ["zero.py"]


def test_script_folders_are_not_packages():
    for folder in ("eval", "tests", "launchers", "data_sharding", "benchmarks"):
        assert not list((ROOT / folder).rglob("__init__.py"))
