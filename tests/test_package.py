"""The package as a whole: what imports what, what is documented, and that its files agree."""

import ast
import graphlib
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / "sat_keras").rglob("*.py"))

# The only modules that may import TensorFlow. The tokenizer does so in its functions: it counts
# words and turns ids into text without TensorFlow.
USES_TENSORFLOW = {"tokenizer", "images", "features", "loaders", "fusion", "devices"}
# What layers and models are made of imports nothing that is about data, files or training.
MODEL_PARTS = {
    "config",
    "attention",
    "fusion",
    "recurrence",
    "decoder",
    "dense",
    "encoder",
    "search",
}
# Python's and Keras's own methods: the class docstring describes what they do here.
INHERITED_METHODS = {
    "build",
    "call",
    "compute_dtype",
    "compute_mask",
    "compute_metrics",
    "compute_output_shape",
    "compute_output_spec",
    "compute_loss",
    "from_config",
    "get_build_config",
    "build_from_config",
    "get_config",
    "get_compile_config",
    "load_own_variables",
    "save_own_variables",
    "load_assets",
    "save_assets",
    "metrics",
    "predict",
    "reset_state",
    "result",
    "test_step",
    "train_step",
    "predict_step",
    "update_state",
}


def module_name(path: Path) -> str:
    """`attention` or `datasets.flickr`; the package itself is the empty name."""
    parts = path.relative_to(REPOSITORY / "sat_keras").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported_names(tree: ast.AST, inside_functions: bool = True) -> set[str]:
    """Dotted names of all that is imported, `package.module.name` for `from package.module`."""
    names = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_type_checking(node) or (is_function and not inside_functions):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}: write the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes.extend(ast.iter_child_nodes(node))
    return names


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def own_imports(path: Path) -> set[str]:
    """Names of the package's modules that a module imports, anywhere in it."""
    modules = {module_name(source) for source in SOURCES} - {""}
    found = set()
    for name in imported_names(parse(path)):
        if not name.startswith("sat_keras"):
            continue
        inner = name.removeprefix("sat_keras").removeprefix(".")
        # `sat_keras.datasets.flickr.load` is about its longest part that is a module.
        while inner and inner not in modules:
            inner = inner.rpartition(".")[0]
        found |= {inner} - {""}
    return found


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


# What imports what


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_tensorflow_is_imported_only_where_its_data_and_text_ops_are(path):
    if module_name(path) not in USES_TENSORFLOW:
        assert packages(imported_names(parse(path))).isdisjoint(
            {"tensorflow", "tensorflow_text", "tf_keras"}
        )


def test_tokenizer_imports_without_tensorflow():
    tree = parse(REPOSITORY / "sat_keras" / "tokenizer.py")
    at_import = packages(imported_names(tree, inside_functions=False))
    assert at_import.isdisjoint({"tensorflow", "tensorflow_text"})


def test_only_visualization_imports_matplotlib():
    users = {module_name(p) for p in SOURCES if "matplotlib" in packages(imported_names(parse(p)))}
    assert users == {"visualization"}


def test_no_module_imports_jax_or_torch():
    """The backend is Keras's business."""
    for path in SOURCES:
        assert packages(imported_names(parse(path))).isdisjoint({"jax", "torch"}), path


def test_imports_run_one_way():
    # The package's own __init__ passes on every module's names and belongs to no layer.
    graph = {module_name(path): own_imports(path) for path in SOURCES if module_name(path)}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert set(order) == set(graph)


def test_parts_of_the_model_import_only_each_other():
    for path in SOURCES:
        if module_name(path) in MODEL_PARTS:
            assert own_imports(path) <= MODEL_PARTS, path


def test_nothing_imports_the_command_line():
    importers = {module_name(path) for path in SOURCES if "cli" in own_imports(path)}
    assert importers <= {"__main__"}


def test_importing_the_package_is_light():
    """In a fresh interpreter: no TensorFlow, no plots, nothing that takes seconds."""
    program = "import sys, sat_keras; print(*sorted(m for m in sys.modules if '.' not in m))"
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    assert {"tensorflow", "tensorflow_text", "keras", "matplotlib"}.isdisjoint(output.split())


def test_scoring_a_file_needs_no_keras(tmp_path):
    """In a fresh interpreter: scores and comparisons come without TensorFlow and its noise."""
    (tmp_path / "captions.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    (tmp_path / "references.json").write_text('{"1": ["a dog runs", "a dog"]}')
    program = (
        "import sys\nfrom sat_keras.cli import program as cli\nfrom sat_keras.evaluation import scores as evaluation\n"
        "evaluation.unavailable = lambda name: f'No {name} here'\n"
        "run = lambda *words: cli.main(list(words)) and sys.exit('failed')\n"
        "run('score', 'captions.json', 'references.json', '--out', 'new/scores.json')\n"
        "run('compare', 'new/scores.json', 'new/scores.json')\n"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"tensorflow", "keras", "matplotlib"}.isdisjoint(done.stdout.split())


# Public names


def test_public_names_resolve_and_are_listed():
    package = importlib.import_module("sat_keras")
    assert len(set(package.__all__)) == len(package.__all__) > 0
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_public_classes_and_functions_are_documented():
    package = importlib.import_module("sat_keras")
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_a_name_that_is_not_there_is_an_attribute_error():
    package = importlib.import_module("sat_keras")
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


def undocumented(body: list[ast.stmt], owner: str):
    """Yields the public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        is_method = "." in owner
        inherited = node.name in INHERITED_METHODS or node.name.startswith("on_")
        if not ast.get_docstring(node) and not (is_method and inherited):
            yield f"{owner}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{owner}{node.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_modules_and_their_public_names_have_docstrings(path):
    tree = parse(path)
    assert ast.get_docstring(tree), f"{path.name} needs a docstring"
    assert list(undocumented(tree.body, "")) == []


# The project's files


def test_version_is_stated_alike(project):
    assert importlib.import_module("sat_keras").__version__ == project["project"]["version"]


def test_requirements_file_agrees_with_the_package(project):
    extras = project["project"]["optional-dependencies"]
    declared = project["project"]["dependencies"] + extras["test"] + extras["notebooks"]
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = [line.split("#") for line in lines if line and not line.startswith("#")]
    assert [requirement.strip() for requirement, *_ in stated] == declared
    assert all(len(parts) == 2 and parts[1].strip() for parts in stated), "say who needs it"


def test_every_import_of_the_package_is_a_dependency(project):
    extra = project["project"]["optional-dependencies"]["eval"]
    requirements = project["project"]["dependencies"] + extra
    declared = {re.match(r"[\w-]+", name)[0] for name in requirements}
    aliases = {"PIL": "pillow", "tensorflow_text": "tensorflow-text"}
    imported = set().union(*(packages(imported_names(parse(path))) for path in SOURCES))
    foreign = imported - set(sys.stdlib_module_names) - {"sat_keras"}
    assert {aliases.get(name, name) for name in foreign} == declared


def test_the_wheel_takes_in_a_folder_that_is_there(project):
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert taken == {"pretrained": "sat_keras/pretrained"}
    assert (REPOSITORY / "pretrained" / "README.md").is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no executable bit")
def test_continuous_integration_can_run():
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_make_help_lists_every_target_for_people():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    described = re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(described) == sorted(targets)
