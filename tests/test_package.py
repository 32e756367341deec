"""The package as a whole: what imports what, what is documented, and that its files agree."""

import ast
import graphlib
import importlib
import inspect
import json
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
PACKAGE = REPOSITORY / "sat_keras"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

# From the bottom up: a room imports only from rooms before it.
ROOMS = (
    *("config", "backend", "search", "evaluation", "data", "datasets", "cnn", "fast"),
    *("captioning", "paper", "baselines", "training", "analysis", "plots", "course", "cli"),
)
# Rooms that may import TensorFlow: its data and text operations, XLA, its device strategies, and
# the export to a SavedModel.
# Layers, model and search use `keras.ops` alone.
USES_TENSORFLOW = {"backend", "captioning", "data", "fast"}
# All public names of version 0.1.0.
PUBLIC_IN_0_1_0 = {
    *("AttentionDecoder", "BahdanauAttention", "Caption", "CaptionSearch", "Captioner", "Config"),
    *("FeatureCache", "HardAttention", "ImageEncoder", "Tokenizer", "attention_html"),
    *("beam_search", "caption_batches", "extract_features", "greedy_search", "load_dataset"),
    *("load_image", "load_pretrained", "picture_batches", "plot_attention", "plot_history"),
    *("sample_search", "score_captions"),
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
    # Of `baselines.PictureCaptioner`, which describes them.
    "next",
    "run",
    "start",
}


def module_name(path: Path) -> str:
    """Returns `paper.attention` for a module, `paper` for a room, "" for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    return module.split(".")[0]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported_names(tree: ast.AST, inside_functions: bool = True) -> set[str]:
    """Returns dotted names of all imports, `package.module.name` for `from package.module`."""
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
    """Returns the package's modules that a module imports, at its top or in a function."""
    modules = {module_name(source) for source in SOURCES} - {""}
    found = set()
    for name in imported_names(parse(path)):
        if not name.startswith("sat_keras"):
            continue
        inner = name.removeprefix("sat_keras").removeprefix(".")
        # The longest part of `sat_keras.datasets.flickr.load` that is a module.
        while inner and inner not in modules:
            inner = inner.rpartition(".")[0]
        found |= {inner} - {""}
    return found


GRAPH = {module_name(path): own_imports(path) for path in SOURCES}


def users_of(package: str) -> set[str]:
    """Returns the rooms with a module that imports a third-party package."""
    return {
        room_of(module_name(path))
        for path in SOURCES
        if package in packages(imported_names(parse(path)))
    }


def run_python(program: str, folder: Path) -> subprocess.CompletedProcess:
    """Runs a program in a fresh interpreter, in a folder, with the repository importable."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


# Rooms


def test_nothing_but_rooms_is_at_the_top_of_the_package():
    found = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert found == {"__init__.py", "__main__.py", "py.typed", *ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_holds(room):
    assert ast.get_docstring(parse(PACKAGE / room / "__init__.py"))


def test_the_package_lists_the_rooms_in_their_order():
    listed = re.findall(r"`([a-z_]+)`", importlib.import_module("sat_keras").__doc__)
    rooms = [name for name in listed if name in ROOMS]
    assert tuple(dict.fromkeys(rooms[rooms.index("config") :])) == ROOMS


def test_a_room_imports_only_from_rooms_below_it():
    upwards = {
        f"{module} imports {imported}"
        for module, imports in GRAPH.items()
        if room_of(module) in ROOMS
        for imported in imports
        if ROOMS.index(room_of(imported)) > ROOMS.index(room_of(module))
    }
    assert upwards == set()


def test_fast_serves_paper_at_one_place():
    """`fast` never imports `paper`, which the order of the rooms says too."""
    users = {module for module, imports in GRAPH.items() if "fast" in map(room_of, imports)}
    assert {user for user in users if room_of(user) == "paper"} <= {"paper.decoder"}


def test_modules_do_not_import_each_other_in_a_circle():
    # The package's own __init__ passes on every room's names and belongs to none.
    graph = {module: imports for module, imports in GRAPH.items() if module}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert set(order) == set(graph)


def test_only_the_entry_point_imports_the_command_line():
    users = {module for module, imports in GRAPH.items() if "cli" in map(room_of, imports)}
    assert {user for user in users if room_of(user) != "cli"} <= {"__main__"}


# Third-party packages


def test_tensorflow_is_imported_only_for_data_text_and_devices():
    assert users_of("tensorflow") | users_of("tensorflow_text") <= USES_TENSORFLOW
    assert users_of("tf_keras") == set()


def test_tokenizer_imports_without_tensorflow():
    at_import = imported_names(parse(PACKAGE / "data" / "tokenizer.py"), inside_functions=False)
    assert packages(at_import).isdisjoint({"tensorflow", "tensorflow_text"})


def test_only_plots_imports_matplotlib():
    assert users_of("matplotlib") == {"plots"}


def test_evaluation_needs_no_keras():
    reached, pending = set(), {module for module in GRAPH if room_of(module) == "evaluation"}
    while pending:
        reached |= pending
        pending = set().union(*(GRAPH[module] for module in pending)) - reached
    for module in reached:
        path = PACKAGE / f"{module.replace('.', '/')}.py"
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        assert packages(imported_names(parse(path))).isdisjoint({"keras", "tensorflow"}), module


def test_no_module_imports_jax_or_torch():
    """The backend is Keras's business."""
    assert users_of("jax") == users_of("torch") == set()


def test_importing_the_package_is_light():
    """In a fresh interpreter: no TensorFlow, no plots, nothing that takes seconds."""
    program = "import sys, sat_keras; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = run_python(program, REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert {"tensorflow", "tensorflow_text", "keras", "matplotlib"}.isdisjoint(done.stdout.split())


def test_scoring_a_file_needs_no_keras(project, tmp_path):
    """In a fresh interpreter: scores and comparisons come without TensorFlow and its messages."""
    (tmp_path / "captions.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    (tmp_path / "references.json").write_text('{"1": ["a dog runs", "a dog"]}')
    command_line = project["project"]["scripts"]["sat-keras"].partition(":")[0]
    program = (
        "import sys\n"
        f"import {command_line} as cli\n"
        "from sat_keras.evaluation import scores\n"
        "scores.unavailable = lambda name: f'No {name} here'\n"
        "run = lambda *words: cli.main(list(words)) and sys.exit('failed')\n"
        "run('score', 'captions.json', 'references.json', '--out', 'new/scores.json')\n"
        "run('compare', 'new/scores.json', 'new/scores.json')\n"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    done = run_python(program, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"tensorflow", "keras", "matplotlib"}.isdisjoint(done.stdout.split())


# Public names


def test_public_names_resolve_and_are_listed():
    package = importlib.import_module("sat_keras")
    assert len(set(package.__all__)) == len(package.__all__) > 0
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_public_names_of_0_1_0_are_still_there():
    assert set(importlib.import_module("sat_keras").__all__) >= PUBLIC_IN_0_1_0


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_of_a_room_resolve(room):
    module = importlib.import_module(f"sat_keras.{room}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


def code_of(path: Path) -> ast.Module:
    """Returns the Python code of a notebook, without lines for the shell and IPython."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", "\n".join(sources), flags=re.MULTILINE))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_public_names_only(path):
    """From `sat_keras` or its rooms, nothing deeper."""
    for name in imported_names(code_of(path)):
        package, _, inner = name.partition(".")
        if package == "sat_keras" and inner:
            room, _, public = inner.partition(".")
            module = f"sat_keras.{room}" if room in ROOMS else "sat_keras"
            listed = importlib.import_module(module).__all__
            assert (public if room in ROOMS else inner) in {*listed, ""}, name


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
    """Yields public classes, functions and methods without a docstring."""
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


def test_version_is_stated_once(project):
    """Hatch reads it from the package."""
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"] == {"path": "sat_keras/__init__.py"}
    version = importlib.import_module("sat_keras").__version__
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {version.partition('.dev')[0]}" in changes


def test_requirements_file_agrees_with_the_package(project):
    extras = project["project"]["optional-dependencies"]
    declared = project["project"]["dependencies"] + extras["test"] + extras["notebooks"]
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = [line.split("#") for line in lines if line and not line.startswith("#")]
    assert [requirement.strip() for requirement, *_ in stated] == declared
    assert all(len(parts) == 2 and parts[1].strip() for parts in stated), "say who needs it"


def test_every_import_of_the_package_is_a_dependency(project):
    extras = project["project"]["optional-dependencies"]
    requirements = project["project"]["dependencies"]
    for extra in ("eval", "heic", "app", "hub", "beam"):
        requirements = requirements + extras[extra]
    declared = {re.match(r"[\w-]+", name)[0].lower() for name in requirements}
    aliases = {
        **{"PIL": "pillow", "tensorflow_text": "tensorflow-text", "pillow_heif": "pillow-heif"},
        **{"keras_hub": "keras-hub", "apache_beam": "apache-beam"},
        "markupsafe": "jinja2",  # comes with it
        "h5py": "keras",  # comes with it
    }
    imported = set().union(*(packages(imported_names(parse(path))) for path in SOURCES))
    foreign = imported - set(sys.stdlib_module_names) - {"sat_keras"}
    assert {aliases.get(name, name) for name in foreign} == declared


def test_the_wheel_takes_in_a_folder_that_is_there(project):
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert taken == {"pretrained": "sat_keras/pretrained"}
    assert (REPOSITORY / "pretrained" / "README.md").is_file()


PAGES = [
    *(path for path in REPOSITORY.glob("*.md")),
    *(REPOSITORY / room / "README.md" for room in ("benchmarks", "data", "pretrained", "results")),
    REPOSITORY / "docs" / "guide.md",
]


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_of_the_pages_lead_somewhere(page):
    for target, _, anchor in re.findall(
        r"\]\(([^)#\s]*)(#([^)\s]*))?\)", page.read_text(encoding="utf-8")
    ):
        if target.startswith(("http://", "https://")):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no executable bit")
def test_continuous_integration_can_run():
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_make_help_lists_every_target_for_people():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    described = re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(described) == sorted(targets)
