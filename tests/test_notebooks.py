"""The notebooks' structure. `pytest --nbval notebooks` runs them and compares their outputs."""

import ast
import base64
import importlib
import inspect
import io
import itertools
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

REPOSITORY = Path(__file__).resolve().parents[1]
# The course in its order.
SERIES = (
    "01_preprocessing",
    "02_encoder_and_attention",
    "03_decoder_and_loss",
    "04_training",
    "05_decoding",
    "05b_evaluation",
    "06_attention_plots",
    "07_flickr8k",
    "08_hard_attention",
    "08b_training_hard_attention",
    "09_table1",
    "10_self_critical",
)

sys.path.insert(0, str(REPOSITORY / "docs"))
import diagram  # noqa: E402

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

LARGEST_NOTEBOOK = 500_000  # bytes
MOST_WORDS = 1800
MOST_CODE_CELLS = 30
LONGEST_CELL = 20  # lines
LONGEST_LINE = 100  # characters, as everywhere else
# The cells that open every notebook: kind, and the tags of a code cell.
OPENING = (
    ("markdown", set()),
    ("markdown", set()),
    ("code", {"setup", "nbval-ignore-output"}),
    ("code", {"versions", "nbval-ignore-output"}),
)
# Besides these, nbval's. `toy` marks a function that is there to be read, not to be reused.
TAGS = {
    "setup",
    "versions",
    "parameters",
    "seed",
    "exercise",
    "toy",
    "nbval-ignore-output",
    "nbval-skip",
}
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return Notebook(request.param)


class Notebook:
    """A notebook file as JSON, its cells' sources and tags joined."""

    def __init__(self, path):
        self.path = path
        self.size = path.stat().st_size
        content = json.loads(path.read_text(encoding="utf-8"))
        self.metadata = content["metadata"]
        self.cells = [Cell(position, cell) for position, cell in enumerate(content["cells"])]
        self.code = [cell for cell in self.cells if cell.kind == "code"]
        self.text = "\n\n".join(cell.source for cell in self.cells if cell.kind == "markdown")

    def tagged(self, tag):
        return [cell for cell in self.code if tag in cell.tags]

    def section(self, title):
        """The text from a heading of the second level to the next."""
        found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found, f"## {title} is missing"
        return found[1]


class Cell:
    def __init__(self, position, cell):
        self.position = position
        self.kind = cell["cell_type"]
        self.source = "".join(cell["source"])
        self.metadata = cell["metadata"]
        self.tags = set(cell["metadata"].get("tags", ()))
        self.outputs = cell.get("outputs", [])
        self.execution_count = cell.get("execution_count")

    def figures(self):
        """Returns the number of figures that the cell shows."""
        pages = ("".join(output.get("data", {}).get("text/html", "")) for output in self.outputs)
        return sum(page.startswith("<img ") for page in pages)

    def texts(self):
        """Yields the source and the outputs of the cell, without figures."""
        yield self.source
        for output in self.outputs:
            yield "".join(output.get("text", ""))
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield re.sub("data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", "".join(value))

    def __repr__(self):
        return f"cell {self.position}: {self.source.splitlines()[0][:60]!r}"


class Images(HTMLParser):
    """Collects the alternative text of the images of a page, "" where an image has none."""

    def __init__(self):
        super().__init__()
        self.descriptions = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.descriptions.append(dict(attrs).get("alt") or "")


# The series


def test_one_repository_is_named_everywhere(notebook):
    """The set-up cell's REPOSITORY and the badge say what pyproject.toml says.

    To move the repository: `sed -i s,OLD,NEW, pyproject.toml notebooks/*.ipynb`.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    (setup,) = notebook.tagged("setup")
    assert re.findall(r'^REPOSITORY = "(.*)"$', setup.source, re.MULTILINE) == [address]
    owner_and_name = address.removeprefix("https://github.com/")
    badge = notebook.cells[0].source
    assert "colab-badge.svg" in badge
    link = f"colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/"
    assert f"{link}{notebook.path.name})" in badge


def test_docstrings_name_notebooks_that_are_there():
    """And every notebook is named by what it explains."""
    sources = [
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "sat_keras").rglob("*.py")
    ]
    named = set(re.findall(r"`(\d\d[a-z]?_[a-z0-9_]+)`", "".join(sources)))
    assert named == {path.stem for path in NOTEBOOKS}


def test_the_readme_lists_them_all():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(notebooks/\1\.ipynb\) \| \S", readme, re.MULTILINE)
    assert tuple(listed) == SERIES == tuple(path.stem for path in NOTEBOOKS)


# The frame


def test_opens_with_badge_title_setup_and_versions(notebook):
    assert tuple((cell.kind, cell.tags) for cell in notebook.cells[:4]) == OPENING
    title = notebook.cells[1].source
    number = notebook.path.stem.split("_")[0].removeprefix("0")
    assert title.startswith(f"# {number}. ")
    for promise in ("**You will build**", "**It takes**", "**You need**"):
        assert promise in title
    assert len(re.findall("^# ", notebook.text, re.MULTILINE)) == 1


def test_setup_installs_on_colab_only(notebook):
    (setup,) = notebook.tagged("setup")
    installs = [line for line in setup.source.splitlines() if "pip install" in line]
    installs = [line for line in installs if "%pip" in line]
    assert installs
    assert all(line.startswith("    %pip") for line in installs), "indented under `if IN_COLAB:`"
    assert all('"tensorflow=={v}"' in line for line in installs), "or pip may replace Colab's"
    assert not any("pip install" in cell.source for cell in notebook.code if cell is not setup)


def run_setup(source, monkeypatch, folder, colab):
    """Runs the set-up cell where sat_keras is not installed and returns what it would install."""
    installed = []
    source = re.sub(r"^(\s*)%pip (.*)$", r"\1pip(f'\2')", source, flags=re.MULTILINE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", None)
    with pytest.raises(ImportError, match="upload the wheel or the checkout") as error:
        exec(source, {"pip": installed.append})
    assert str(error.value).count(". ") <= 1
    return "".join(installed)


def test_setup_says_what_to_do_where_nothing_can_be_installed(monkeypatch, tmp_path):
    (setup,) = Notebook(NOTEBOOKS[0]).tagged("setup")
    assert run_setup(setup.source, monkeypatch, tmp_path, colab=False) == ""
    assert "git+https://" in run_setup(setup.source, monkeypatch, tmp_path, colab=True)


@pytest.mark.parametrize("beside", ["sat_keras-0.1.0-py3-none-any.whl", "sat_keras/pyproject.toml"])
def test_setup_installs_what_lies_beside_the_notebook(monkeypatch, tmp_path, beside):
    (setup,) = Notebook(NOTEBOOKS[0]).tagged("setup")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).touch()
    installed = run_setup(setup.source, monkeypatch, tmp_path, colab=True)
    assert f'"./{beside.removesuffix("pyproject.toml")}"' in installed


def test_setup_is_the_same_in_all(notebook):
    (setup,), (first,) = notebook.tagged("setup"), Notebook(NOTEBOOKS[0]).tagged("setup")
    assert setup.source == first.source


def test_parameters_and_seed_come_before_all_else(notebook):
    parameters, seed = notebook.code[2:4]
    assert "parameters" in parameters.tags
    assert len(notebook.tagged("parameters")) == 1
    assert re.search(r"^DATASET = ", parameters.source, re.MULTILINE)
    assert re.search(r"^SEED = \d", parameters.source, re.MULTILINE)
    assert "seed" in seed.tags
    assert "set_random_seed(SEED)" in seed.source


def test_ends_with_summary_exercises_and_next(notebook):
    headings = re.findall("^## (.*)$", notebook.text, re.MULTILINE)
    assert headings[-3:] == ["Summary", "Exercises", "Next"]
    assert len(re.findall("^- ", notebook.section("Summary"), re.MULTILINE)) >= 3
    links = re.findall(r"\]\(([^)]+)\)", notebook.section("Next"))
    position = SERIES.index(notebook.path.stem)
    if position + 1 < len(SERIES):
        assert links[:1] == [f"{SERIES[position + 1]}.ipynb"]
    else:
        assert links


def test_shows_the_diagram_with_its_part_lit(notebook):
    """`python docs/diagram.py` attaches it, after a change of docs/model.svg too."""
    content = json.loads(notebook.path.read_text(encoding="utf-8"))
    names = re.findall(r"\]\(attachment:([^)]+)\)", notebook.text)
    assert diagram.NAME in names
    attached = {}
    for cell in content["cells"]:
        attached |= cell.get("attachments", {})
    assert sorted(attached) == sorted(names)
    source = diagram.SOURCE.read_text(encoding="utf-8")
    lit = diagram.light(source, diagram.LIT[notebook.path.stem])
    for name, formats in attached.items():
        decoded = [base64.b64decode("".join(data)) for data in formats.values()]
        if name == diagram.NAME:  # JupyterLab shows the first format, and no SVG
            assert list(formats) == ["image/png", "image/svg+xml"]
            assert Image.open(io.BytesIO(decoded[0])).text["Source"] == diagram.digest(lit)
            assert decoded[1] == lit.encode()
        else:
            assert decoded == [(REPOSITORY / "docs" / "attention" / name).read_bytes()], name


def test_every_lit_part_is_in_the_diagram():
    parts = set(re.findall('data-part="([a-z]+)"', diagram.SOURCE.read_text(encoding="utf-8")))
    assert set().union(*(lit for lit in diagram.LIT.values() if lit != "all")) <= parts
    assert tuple(diagram.LIT) == SERIES


def test_is_short_enough_to_follow(notebook):
    assert len(notebook.text.split()) <= MOST_WORDS
    assert len(notebook.code) <= MOST_CODE_CELLS


def test_links_lead_somewhere(notebook):
    for target in re.findall(r"\]\(([^)#]+)\)", notebook.text):
        if target.startswith("attachment:"):
            continue
        assert target.startswith("https://") or (notebook.path.parent / target).exists(), target


def test_exercises_can_be_checked(notebook):
    titles = re.findall(r"^### Exercise (\d): \S", notebook.section("Exercises"), re.MULTILINE)
    assert 3 <= len(titles) <= 5
    assert [int(number) for number in titles] == list(range(1, len(titles) + 1))
    exercises = notebook.tagged("exercise")
    assert len(exercises) == len(titles)
    is_function = []
    for cell in exercises:
        open_answer = re.search("^answer = None  # |^def answer\\(", cell.source, re.MULTILINE)
        assert open_answer, cell
        is_function.append("def" in open_answer[0])
        assert re.search(r"^check\.\w+\(answer\b", cell.source, re.MULTILINE), cell
        assert any("is yours." in text for text in cell.texts()), cell
        question = notebook.cells[cell.position - 1].source
        (solution,) = FENCE.findall(question)
        assert "<details>" in question
        assert re.search(r"^\s*(def )?answer\b", solution, re.MULTILINE), cell
        compile(solution, "solution", "exec")
    assert any(is_function), "an exercise fills in a function"


# The cells


def test_code_cells_are_short(notebook):
    for cell in notebook.code:
        lines = cell.source.splitlines()
        assert len(lines) <= LONGEST_CELL, cell
        assert max(map(len, lines)) <= LONGEST_LINE, cell


def test_nothing_reusable_is_defined(notebook):
    """Functions and classes belong to the library; a toy is there to be read."""
    for cell in notebook.code:
        if not cell.tags & {"toy", "exercise"}:
            assert not re.search(r"^\s*class ", cell.source, re.MULTILINE), cell
            assert not re.search(r"^\s*(async )?def |= lambda", cell.source, re.MULTILINE), cell


def test_names_of_the_library_are_there(notebook):
    """What a cell imports from a room, or reads from one by its name, the room exports."""
    rooms, used = {}, set()
    trees = [ast.parse(cell.source) for cell in notebook.code if "setup" not in cell.tags]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sat_keras":
            origin = importlib.import_module(node.module)
            for alias in node.names:
                found = getattr(origin, alias.name, None)
                if found is None:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                if inspect.ismodule(found):
                    rooms[alias.asname or alias.name] = found
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add((node.value.id, node.attr))
    missing = [f"{name}.{x}" for name, x in used if name in rooms and not hasattr(rooms[name], x)]
    assert not missing


def test_tags_are_known(notebook):
    for cell in notebook.cells:
        assert cell.tags <= TAGS, cell


def test_equations_are_beside_code(notebook):
    """No equation stands alone: a code cell is among the next two."""
    for cell in notebook.cells:
        if cell.kind == "markdown" and "$$" in cell.source and "## Exercises" not in cell.source:
            after = notebook.cells[cell.position + 1 : cell.position + 3]
            assert any(other.kind == "code" for other in after), cell


def test_results_are_named_and_asserted(notebook):
    code = "\n".join(cell.source for cell in notebook.code if "exercise" not in cell.tags)
    assert re.search(r"^ex_\w+", code, re.MULTILINE)
    assert re.search(r"^\s*assert ", code, re.MULTILINE)


def test_assertions_do_not_compare_with_zero(notebook):
    """Rounding makes a small number of what is 0 in theory: the threshold must be relative."""
    for cell in notebook.code:
        for line in cell.source.splitlines():
            if line.lstrip().startswith("assert "):
                assert not re.search(r"(?<![=<>])[<>] 0(?![.\d])", line), line


# The stored outputs


def test_was_run_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in notebook.code]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_hold_no_errors_and_no_warnings(notebook):
    for cell in notebook.code:
        for output in cell.outputs:
            assert output["output_type"] != "error", cell
            assert output.get("name") != "stderr", cell
        assert not any("Traceback (most recent" in text for text in cell.texts()), cell


def test_findings_are_printed_as_numbers(notebook):
    for cell in notebook.code:
        printed = "".join("".join(output.get("text", "")) for output in cell.outputs)
        assert not re.search(r"\b(True|False)\b", printed), cell


def test_is_small(notebook):
    assert notebook.size <= LARGEST_NOTEBOOK


def test_holds_no_absolute_paths(notebook):
    unix = r"(?<![\w:/.<>)\]}$-])/[A-Za-z_][\w.-]*/[\w./-]+"
    windows = r"\b[A-Z]:\\\w"
    for cell in notebook.cells:
        for text in cell.texts():
            assert not re.search(f"{unix}|{windows}", text), cell


def test_figures_have_a_caption(notebook):
    numbers = itertools.count(1)
    for cell in notebook.code:
        for _ in range(cell.figures()):
            caption = notebook.cells[cell.position + 1]
            assert caption.kind == "markdown", cell
            assert caption.source.startswith(f"*Figure {next(numbers)}. "), cell
    assert next(numbers) > 3


def test_figures_are_html_images(notebook):
    """JupyterLab and nbconvert drop the alternative text of PNG outputs."""
    for cell in notebook.code:
        for output in cell.outputs:
            assert "image/png" not in output.get("data", {}), cell


@pytest.mark.integration
def test_exported_page_describes_every_image(notebook):
    """`jupyter nbconvert --to html` keeps the alternative text of figures, widgets and diagrams."""
    nbconvert = pytest.importorskip("nbconvert")
    page, _ = nbconvert.HTMLExporter().from_filename(str(notebook.path))
    images = Images()
    images.feed(page)
    assert len(images.descriptions) > 3
    for description in images.descriptions:
        assert len(description) >= 12, description
        assert not description.startswith("No description"), "nbconvert found no `alt`"


def test_metadata_is_clean(notebook):
    """Checks that `nbstripout --keep-output --keep-count` was applied, which keeps diffs small."""
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    for cell in notebook.cells:
        folded = {"jupyter"} if "setup" in cell.tags else set()
        assert set(cell.metadata) <= {"tags"} | folded, cell
