"""Figures: their structure, and that a map shows where the weights are; no pixels compared."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from sat_keras.plots.figures import (
    describe_attention,
    plot_annotation_grid,
    plot_attention,
    plot_history,
    save_figure,
    upsample_attention,
)

WORDS = ["two", "dogs", "run"]


@pytest.fixture(autouse=True)
def no_figure_left():
    """pyplot keeps every figure until somebody closes it: let no test see another's."""
    yield
    plt.close("all")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (168, 224, 3), dtype="uint8")


def one_hot(row, column, shape=(7, 7)):
    weights = np.zeros(shape, "float32")
    weights[row, column] = 1.0
    return weights


@pytest.fixture
def attention():
    """Upper left, centre, everywhere."""
    return np.stack([one_hot(0, 1), one_hot(3, 3), np.full((7, 7), 1 / 49)])


def overlay(axes):
    """The picture in its colours and, as the fourth channel, the map that reveals it."""
    return axes.images[-1].get_array()


# plot_attention


def test_picture_first_then_a_panel_for_each_word(image, attention):
    figure = plot_attention(image, WORDS, attention, gate=[0.1, 0.98, 0.5])
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == ["", *WORDS]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "β = 0.10", "β = 0.98", "β = 0.50"]
    assert [len(axes.images) for axes in figure.axes] == [1, 2, 2, 2]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), image / 255, atol=1e-6)


def test_overlay_has_the_picture_and_the_map_at_its_size(image, attention):
    figure = plot_attention(image, WORDS, attention)
    for axes, weights in zip(figure.axes[1:], attention, strict=True):
        shown = overlay(axes)
        assert shown.shape == (168, 224, 4)
        np.testing.assert_allclose(shown[..., :3], image / 255, atol=1e-6)
        np.testing.assert_allclose(shown[..., 3], upsample_attention(weights, 168, 224))


def test_what_is_not_attended_is_dimmed_and_grey(image, attention):
    dimmed = plot_attention(image, WORDS, attention).axes[1].images[0].get_array()
    assert np.ptp(dimmed, axis=-1).max() == 0
    assert dimmed.mean() < 0.5 * image.mean() / 255


def test_uniform_attention_lights_the_whole_picture_and_has_no_outline(image, attention):
    focused, _, uniform = plot_attention(image, WORDS, attention).axes[1:]
    np.testing.assert_allclose(overlay(uniform)[..., 3], 1.0, rtol=1e-6)
    assert len(uniform.collections) == 0
    assert len(focused.collections) == 1


def test_no_gate_no_label(image, attention):
    assert {axes.get_xlabel() for axes in plot_attention(image, WORDS, attention).axes} == {""}


@pytest.mark.parametrize("scale", [255.0, 1.0])
def test_floats_of_either_range_are_the_same_picture(image, attention, scale):
    whole = plot_attention(image, WORDS, attention).axes[0].images[0].get_array()
    floats = plot_attention(image / 255.0 * scale, WORDS, attention).axes[0].images[0].get_array()
    np.testing.assert_allclose(floats, whole, atol=1e-6)


def test_a_small_picture_is_enlarged_under_the_map():
    image = np.arange(8 * 8 * 3, dtype="uint8").reshape(8, 8, 3)
    figure = plot_attention(image, ["dot"], one_hot(1, 1, (2, 2))[None])
    shown = overlay(figure.axes[1])
    assert shown.shape == (160, 160, 4)
    np.testing.assert_allclose(shown[::20, ::20, :3], image / 255, atol=1e-6)
    assert len(np.unique(shown[..., 3])) > 100


@pytest.mark.parametrize(("steps", "columns", "rows"), [(3, None, 1), (13, None, 3), (40, 5, 9)])
def test_panels_wrap_and_lie_apart_inside_the_figure(image, steps, columns, rows):
    words = ["word"] * steps
    figure = plot_attention(
        image, words, np.full((steps, 2, 2), 0.25), gate=np.ones(steps), columns=columns, title="x"
    )
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 1 + steps
    assert len({round(place.y0, 6) for place in places}) == rows
    assert all(place.x0 >= 0 and place.y0 >= 0 for place in places)
    assert all(place.x1 <= 1 and place.y1 <= 1 for place in places)
    assert not any(
        first.overlaps(second) for i, first in enumerate(places) for second in places[:i]
    )


def test_texts_stay_inside_the_figure_and_apart(image):
    """Long words and a long title, measured as drawn."""
    words = ["counterrevolutionaries"] * 8
    title = " ".join(words * 2)
    figure = plot_attention(image, words, np.full((8, 2, 2), 0.25), gate=np.ones(8), title=title)
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[1:]]
    boxes += [axes.xaxis.label.get_window_extent() for axes in figure.axes[1:]]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    boxes.append(figure.texts[0].get_window_extent())
    edge = figure.bbox
    assert all(edge.x0 <= b.x0 and b.x1 <= edge.x1 for b in boxes)
    assert all(edge.y0 <= b.y0 and b.y1 <= edge.y1 for b in boxes)
    assert not any(first.overlaps(second) for i, first in enumerate(boxes) for second in boxes[:i])


def test_panels_keep_the_shape_of_the_picture(attention):
    wide = np.zeros((100, 200, 3), "uint8")
    figure = plot_attention(wide, WORDS, attention)
    place = figure.axes[1].get_window_extent()
    assert place.height / place.width == pytest.approx(0.5)


def test_dollar_signs_are_text_and_not_formulas(image):
    words = ["$x", "y$", r"$\broken$"]
    figure = plot_attention(image, words, np.full((3, 2, 2), 0.25), title="$ 5 $")
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes[1:]] == words


def test_a_caption_without_words_is_the_picture(image):
    nothing = np.zeros((0, 7, 7))
    assert len(plot_attention(image, [], nothing).axes) == 1
    assert describe_attention([], nothing) == "A caption without words."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": np.zeros((4, 4))}, r"RGB picture .* Received: shape \(4, 4\)"),
        ({"words": ["one"]}, r"each of the 1 words\. Received: shape \(3, 7, 7\)"),
        ({"attention": np.zeros((3, 49))}, r"grid_height, .* Received: shape \(3, 49\)"),
        ({"attention": np.full((3, 2, 2), np.nan)}, "at least 0. Received: values from nan"),
        ({"attention": np.full((3, 2, 2), -1.0)}, "at least 0. Received: values from -1.0"),
        ({"gate": np.zeros((3, 1))}, r"one value for each .* Received: shape \(3, 1\)"),
        ({"columns": 0}, "at least 1. Received: columns=0"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_figure_is_made(image, attention, changed, message):
    arguments = {"image": image, "words": WORDS, "attention": attention} | changed
    with pytest.raises(ValueError, match=message):
        plot_attention(**arguments)
    assert plt.get_fignums() == []


def test_settings_are_left_alone_and_pyplot_shows_the_figure(image, attention):
    before = dict(plt.rcParams)
    figure = plot_attention(image, WORDS, attention)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == [figure.number]


# upsample_attention


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_an_isolated_peak_stays_in_its_region(rows, columns, data):
    row = data.draw(st.integers(0, rows - 1))
    column = data.draw(st.integers(0, columns - 1))
    enlarged = upsample_attention(one_hot(row, column, (rows, columns)), 16 * rows, 12 * columns)
    y, x = np.unravel_index(enlarged.argmax(), enlarged.shape)
    assert (y // 16, x // 12) == (row, column)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=12, max_size=12).filter(lambda w: max(w) > 1e-3),
)
def test_upsampling_stays_within_the_weights(weights):
    weights = np.reshape(weights, (3, 4))
    enlarged = upsample_attention(weights, 30, 32)
    assert enlarged.shape == (30, 32)
    assert enlarged.max() == 1.0
    # Nothing overshoots: the least enlarged weight is no smaller than the least weight.
    assert enlarged.min() >= weights.min() / weights.max() - 1e-6


def test_upsampling_equals_the_weighted_mean_of_its_definition():
    weights = np.random.default_rng(1).random((2, 3))
    expected = np.zeros((4, 5))
    for y, x in np.ndindex(4, 5):
        row = (y + 0.5) * 2 / 4 - 0.5 - np.arange(2)[:, None]
        column = (x + 0.5) * 3 / 5 - 0.5 - np.arange(3)[None, :]
        kernel = np.exp(-(row**2 + column**2) / (2 * 0.75**2))
        expected[y, x] = (kernel * weights).sum() / kernel.sum()
    np.testing.assert_allclose(
        upsample_attention(weights, 4, 5), expected / expected.max(), rtol=1e-5
    )


def test_upsampling_mirrors_with_the_weights():
    weights = np.random.default_rng(2).random((4, 4))
    np.testing.assert_allclose(
        upsample_attention(weights[:, ::-1], 32, 32),
        upsample_attention(weights, 32, 32)[:, ::-1],
        rtol=1e-5,
    )


def test_no_weight_gives_zeros():
    assert not upsample_attention(np.zeros((2, 2)), 8, 8).any()


# describe_attention


def test_description_names_each_words_place(attention):
    assert describe_attention(WORDS, attention) == (
        'Attention while writing "two dogs run": '
        "two (upper left), dogs (centre), run (the whole picture)."
    )


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 3, "upper"), (6, 3, "lower"), (3, 0, "left"), (2, 6, "right"), (6, 6, "lower right")],
)
def test_places_of_a_grid_of_nine(row, column, place):
    assert describe_attention(["it"], one_hot(row, column)[None]).endswith(f"it ({place}).")


def test_description_refuses_what_does_not_fit(attention):
    with pytest.raises(ValueError, match="each of the 1 words"):
        describe_attention(["one"], attention)


# plot_annotation_grid


def test_small_grid_numbers_every_region_in_reading_order(image):
    (axes,) = plot_annotation_grid(image, (3, 4)).axes
    assert [text.get_text() for text in axes.texts] == [str(i) for i in range(12)]
    first, last = axes.texts[0].get_position(), axes.texts[-1].get_position()
    assert first == pytest.approx((28, 28))
    assert last == pytest.approx((196, 140))
    assert axes.get_xlabel() == "3 × 4 = 12 regions of 56 × 56 pixels"


def test_large_grid_numbers_its_first_row_and_column(image):
    (axes,) = plot_annotation_grid(image, (14, 14)).axes
    numbers = [int(text.get_text()) for text in axes.texts]
    assert numbers == [*range(14), *range(14, 196, 14)]


@pytest.mark.parametrize("grid_shape", [(0, 3), (3,), (1, 2, 3)])
def test_grid_of_another_kind_is_refused(image, grid_shape):
    with pytest.raises(ValueError, match="Received: grid_shape="):
        plot_annotation_grid(image, grid_shape)


# plot_history


@pytest.fixture
def log():
    return pd.DataFrame(
        {
            "epoch": [0, 1, 2],
            "learning_rate": [1e-3, 1e-3, 5e-4],
            "loss": [5.0, 4.0, 3.0],
            "val_loss": [5.5, 4.5, 4.25],
            "penalty": [60.0, 50.0, 40.0],
            "dev_bleu1": [40.0, 50.0, 60.0],
            "dev_bleu4": [10.0, 21.5, 20.0],
            "dev_cider": [0.2, 0.3, np.nan],
        }
    )


def curves(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_legend_handles_labels()[0]}


def test_each_quantity_has_its_panel_and_the_rest_none(log):
    figure = plot_history(log)
    found = {axes.get_title(): list(curves(axes)) for axes in figure.axes}
    assert found == {
        "Loss": ["loss", "val loss"],
        "Attention penalty": ["penalty"],
        "BLEU-4 (%)": ["dev bleu4"],
        "CIDEr": ["dev cider"],
    }


def test_curves_have_the_logs_numbers_at_epochs_from_one(log):
    axes = plot_history(log).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(curves(axes)["val loss"], log["val_loss"])


def test_train_and_dev_differ_in_more_than_colour(log):
    train, dev = plot_history(log).axes[0].lines
    assert train.get_color() == dev.get_color()
    assert train.get_linestyle() != dev.get_linestyle()
    assert train.get_marker() != dev.get_marker()


def test_curves_of_a_panel_differ_in_more_than_colour():
    names = ["loss", "cross_entropy", "nll", "val_loss", "val_cross_entropy", "val_nll"]
    lines = plot_history({name: [2.0, 1.0] for name in names}).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(names)


def test_best_epoch_of_each_score_is_marked(log):
    bleu, cider = plot_history(log).axes[2:]
    assert [(text.get_text(), text.xy) for text in bleu.texts] == [("21.5", (2, 21.5))]
    assert [(text.get_text(), text.xy) for text in cider.texts] == [("0.3", (2, 0.3))]


def test_log_file_table_and_dictionary_are_the_same(log, tmp_path):
    path = tmp_path / "log.csv"
    log.to_csv(path, index=False)
    history = log.drop(columns="epoch").to_dict("list")
    expected = [curves(axes) for axes in plot_history(log).axes]
    for given_as in (path, str(path), history):
        found = [curves(axes) for axes in plot_history(given_as).axes]
        for panel, other in zip(found, expected, strict=True):
            assert panel.keys() == other.keys()
            for name in panel:
                np.testing.assert_array_equal(panel[name], other[name])


def test_a_score_that_was_never_computed_has_no_mark(log):
    log["dev_cider"] = np.nan
    assert len(plot_history(log).axes[3].texts) == 0


def test_history_of_nothing_is_refused(log, tmp_path):
    empty = tmp_path / "log.csv"
    empty.touch()
    for nothing in (empty, log.iloc[:0], {}):
        with pytest.raises(ValueError, match=r"at least one epoch.*Received"):
            plot_history(nothing)
    with pytest.raises(ValueError, match=r"Received: columns \['learning_rate'\]"):
        plot_history(log[["learning_rate"]])
    with pytest.raises(FileNotFoundError):
        plot_history(tmp_path / "none.csv")


# save_figure


def test_a_saved_figure_is_small_described_and_closed(image, attention, tmp_path):
    figure = plot_attention(image, WORDS, attention)
    path = save_figure(figure, tmp_path / "new" / "figure.png", "β of two dogs")
    assert plt.get_fignums() == []
    assert path.stat().st_size <= 300_000
    with Image.open(path) as written:
        assert written.format == "PNG"
        assert written.size == tuple(np.round(100 * figure.get_size_inches()).astype(int))
        assert written.text == {"Description": "β of two dogs"}


def test_colours_are_kept_where_they_are_rare(tmp_path):
    """A small yellow thing, dimmed, must not be drawn in an orange that is there as well."""
    generator = np.random.default_rng(0)
    scene = generator.normal(150, 25, (64, 64, 1)) + generator.normal(0, 12, (64, 64, 3))
    scene[20:28, 44:52], scene[44:52, 8:16] = (245, 215, 40), (240, 125, 20)  # yellow, orange
    far = np.hypot(*(np.indices((8, 8)) - 4))
    maps = np.stack([np.exp(-far / T) / np.exp(-far / T).sum() for T in (0.2, 5, 1000)])
    figure = plot_attention(scene.clip(0, 255).astype("uint8"), WORDS, maps)
    figure.savefig(tmp_path / "all.png", dpi=100)
    drawn, kept = (
        np.asarray(Image.open(path).convert("RGB")).astype(int)
        for path in (tmp_path / "all.png", save_figure(figure, tmp_path / "palette.png"))
    )
    assert np.abs(kept - drawn).max() < 30
    assert np.all(kept[0] == 255)  # the paper


def test_the_size_limit_holds_for_many_panels_of_noise(image, tmp_path):
    """Noise does not compress: the worst picture there is."""
    figure = plot_attention(image, ["noise"] * 11, np.full((11, 2, 2), 0.25))
    wide = 100 * figure.get_figwidth()
    with Image.open(save_figure(figure, tmp_path / "noise.png")) as written:
        assert written.width < wide
    assert (tmp_path / "noise.png").stat().st_size <= 300_000


def test_only_png_is_written(image, tmp_path):
    figure = plot_annotation_grid(image, (2, 2))
    with pytest.raises(ValueError, match=r"must end in \.png\. Received: .*figure\.jpg"):
        save_figure(figure, tmp_path / "figure.jpg")
