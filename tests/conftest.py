"""What every test starts from: quiet logs, fixed seeds, no display, real data if there is any."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from seeding import fix_seed
from tracing import functions_run_eagerly

# Before anything imports TensorFlow or matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker has one core: threads that wait for each other's tiny tensors cost a fifth more.
    for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, "1")

SEED = 1234
REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")


def pytest_configure(config):
    """Has pytest-xdist keep the order of the files.

    It would start those of the most tests first, and so end with a few long trainings in one
    process while the other is idle. Releases before 3.7 always do.
    """
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Starts the files with the mark `long` first, so that two processes end together.

    Both groups stay in the random order of pytest-randomly, which shuffles before.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """Has the garbage collector run less often, and not on the modules' million objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def seeded_backend():
    """Seeds the backend's own generators, on which no result in the tests depends.

    A test file that needs Keras has imported it by now; one that does not is spared the seconds
    that importing TensorFlow takes.
    """
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)


@pytest.fixture(scope="module", autouse=True)
def whole_tracebacks():
    """Has Keras leave tracebacks whole: it wraps every call of a layer to shorten them."""
    if "keras" in sys.modules:
        sys.modules["keras"].config.disable_traceback_filtering()


@pytest.fixture(autouse=True)
def fixed_seed():
    """Seeds what is drawn in a test, so that it is the same in any order of the tests."""
    fix_seed(SEED)


@pytest.fixture(autouse=True)
def no_figure_left():
    """Closes pyplot's figures after each test, which the next one would see."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module", autouse=True)
def eager(request):
    """Runs TensorFlow's functions eagerly: tracing them takes longer than a few tiny steps.

    The mark `graph` on a test or a file traces them as users do, the notebooks do so everywhere,
    and a long training in a fixture should.
    """
    with functions_run_eagerly(not request.node.get_closest_marker("graph")):
        yield


@pytest.fixture(autouse=True)
def graph(request, eager):
    """Traces TensorFlow's functions in the tests with the mark `graph`."""
    if request.node.get_closest_marker("graph"):
        with functions_run_eagerly(False):
            yield
    else:
        yield


@pytest.fixture(scope="module")
def no_java():
    """Leaves METEOR out, whose program takes seconds to start; `test_java_metrics` runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sat_keras.evaluation.scores.unavailable", lambda name: f"{name} is left out")
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and CNN weights, or a skip where there is none.

    `SAT_KERAS_SHARED` names it; without that variable it is `shared` beside the repository.
    """
    named = os.environ.get("SAT_KERAS_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"SAT_KERAS_SHARED must name an existing folder. Received: {named}")
    pytest.skip(f"needs real data: no folder {folder}, and SAT_KERAS_SHARED is not set")


@pytest.fixture(scope="session")
def flickr8k_text(request) -> Path:
    """The folder with `Flickr8k_text.zip`: the repository's data/flickr8k, else the shared one."""
    own = REPOSITORY / "data" / "flickr8k"
    if (own / "Flickr8k_text.zip").is_file():
        return own
    return request.getfixturevalue("shared") / "flickr8k"


@pytest.fixture(scope="session")
def pixel_captioner():
    """A captioner of pictures of 16 pixels with random weights."""
    import numpy as np

    from sat_keras import Captioner, Config, ImageEncoder, Tokenizer

    fix_seed(3)
    tokenizer = Tokenizer.from_captions(["a red circle", "a blue square is small"])
    encoder = ImageEncoder("scenes", weights=None, resize="squash", image_size=16)
    config = Config.tiny().replace(
        encoder="scenes",
        image_size=16,
        resize="squash",
        grid_shape=encoder.grid_shape,
        feature_dim=encoder.feature_dim,
        max_length=4,
        beam_size=2,
        length_penalty=1.0,
    )
    captioner = Captioner(config, tokenizer, encoder)
    generator = np.random.default_rng(0)
    for weight in captioner.decoder.trainable_variables:
        weight.assign(generator.normal(size=weight.shape, scale=0.5))
    return captioner
