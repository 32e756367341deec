"""Figures: their structure, that a map shows where the weights are, and the settings they use."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from sat_keras.analysis.search_tree import Hypothesis
from sat_keras.cnn.resize import PictureResize
from sat_keras.plots import (
    describe_attention,
    plot_annotation_grid,
    plot_attention,
    plot_beam_tree,
    plot_history,
    save_figure,
    seen_box,
    upsample_attention,
)

WORDS = ["two", "dogs", "run"]


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


HOSTILE = {
    **{"image.origin": "lower", "image.cmap": "hot", "image.interpolation": "nearest"},
    **{"image.aspect": "auto", "axes.grid": True, "axes.facecolor": "black", "axes.linewidth": 5},
    **{"axes.titlesize": 30, "axes.titlelocation": "left", "axes.labelsize": 30, "font.size": 25},
    **{"font.family": "monospace", "font.sans-serif": ["DejaVu Serif"], "font.weight": "bold"},
    **{
        "figure.facecolor": "black",
        "figure.dpi": 31,
        "figure.autolayout": True,
        "lines.marker": "x",
    },
    **{"savefig.dpi": 37, "savefig.bbox": "tight", "savefig.facecolor": "red", "text.color": "red"},
    **{"lines.linewidth": 9, "contour.linewidth": 9, "patch.linewidth": 9, "legend.fontsize": 30},
    **{"path.simplify": False, "path.sketch": (9, 9, 9), "text.hinting": "none"},
    **{"text.antialiased": False, "xtick.labelsize": 30, "axes.xmargin": 0.5},
    **{"axes.spines.left": False, "lines.marker": "x"},
    **{"legend.frameon": True, "savefig.transparent": True},
}


@pytest.mark.parametrize("kind", ["attention", "grid", "history", "tree"])
def test_figures_do_not_depend_on_the_users_settings(image, attention, log, tmp_path, kind):
    def pixels(name):
        figure = {
            "attention": lambda: plot_attention(
                image, WORDS, attention, [0.1, 0.5, 1], title="two dogs", seen=(28, 0, 196, 168)
            ),
            "grid": lambda: plot_annotation_grid(image, (3, 4)),
            "history": lambda: plot_history(log),
            "tree": lambda: plot_beam_tree(
                [Hypothesis(0, None, 0, 0.0), Hypothesis(1, 0, 1, -1.0, rank=0)], ["start", "end"]
            ),
        }[kind]()
        figure.canvas.draw()  # as a notebook does
        drawn = np.array(figure.canvas.buffer_rgba())
        return drawn, np.asarray(Image.open(save_figure(figure, tmp_path / f"{name}.png")))

    expected = pixels("default")
    with mpl.rc_context(HOSTILE):
        found = pixels("hostile")
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_top_of_a_picture_is_drawn_at_the_top():
    image = np.full((64, 64, 3), 255, "uint8")
    image[:16] = (200, 0, 0)
    file = io.BytesIO()
    with mpl.rc_context({"image.origin": "lower"}):
        plot_attention(image, ["sky"], one_hot(0, 3)[None]).savefig(file, dpi=100)
    drawn = np.asarray(Image.open(file).convert("RGB")).astype(int)
    redness = drawn[..., 0] - drawn[..., 1]
    rows = np.flatnonzero((redness[:, : drawn.shape[1] // 2] > 100).any(axis=1))
    assert rows.max() < drawn.shape[0] / 2


# What the model saw of a photo


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 40), (30, 77), (2, 90), (16, 16)])
@pytest.mark.parametrize("policy", ["crop", "squash"])
def test_seen_box_is_what_resizing_keeps(height, width, policy):
    resize = PictureResize(16, policy)
    box = seen_box(resize, height, width)
    if policy == "squash" or height == width == 16:
        assert box == (0, 0, width, height)
    # The corners of the box become the corners of the resized picture.
    np.testing.assert_allclose(
        resize.resize_boxes([box], height, width), [[0, 0, 16, 16]], atol=1e-4
    )
    inner = np.add(box, [0.01, 0.01, -0.01, -0.01])
    resized = resize.resize_boxes([inner], height, width)
    assert (resized[0, :2] > 0).all()
    assert (resized[0, 2:] < 16).all()


def test_maps_cover_what_was_seen_and_the_rest_is_dimmed(image, attention):
    figure = plot_attention(image, WORDS, attention, seen=(28, 14, 196, 154))
    assert len(figure.axes[0].patches) == 1  # the frame
    for axes, weights in zip(figure.axes[1:], attention, strict=True):
        alpha = overlay(axes)[..., 3]
        assert alpha.shape == image.shape[:2]
        np.testing.assert_allclose(alpha[14:154, 28:196], upsample_attention(weights, 140, 168))
        assert alpha.sum() == pytest.approx(alpha[14:154, 28:196].sum())
    assert len(figure.axes[3].collections) == 0  # uniform attention: no outline


@pytest.mark.parametrize(("height", "width"), [(500, 667), (1234, 777), (49, 83), (480, 480)])
def test_a_squashed_photo_is_seen_as_a_whole(height, width):
    photo = np.zeros((height, width, 3), "uint8")
    seen = seen_box(PictureResize(224, "squash"), height, width)
    figure = plot_attention(photo, ["it"], np.full((1, 2, 2), 0.25), seen=seen)
    assert overlay(figure.axes[1])[..., 3].min() == pytest.approx(1)
    assert len(figure.axes[0].patches) == 0  # no frame


def test_large_photos_keep_their_aspect_ratio(attention):
    figure = plot_attention(np.zeros((600, 1200, 3), "uint8"), WORDS, attention)
    assert overlay(figure.axes[1]).shape == (240, 480, 4)


@pytest.mark.parametrize("seen", [(0, 0, 225, 168), (-1, 0, 9, 9), (9, 0, 9, 9), (0, 9, 9, 8)])
def test_a_box_outside_the_picture_is_refused(image, attention, seen):
    with pytest.raises(ValueError, match=r"in the picture of 224 x 168 pixels\. Received: seen="):
        plot_attention(image, WORDS, attention, seen=seen)


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


def test_a_map_without_weight_is_nowhere():
    assert describe_attention(["it"], np.zeros((1, 2, 2))).endswith("it (nowhere).")


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


def test_quantities_of_other_objectives_are_drawn(log):
    log["reward"], log["grounding"] = [0.4, 0.5, 0.6], [1.0, 0.9, 0.8]
    panels = {axes.get_title(): axes for axes in plot_history(log).axes}
    assert list(curves(panels["Supervised attention"])["grounding"]) == [1.0, 0.9, 0.8]
    assert set(curves(panels["CIDEr"])) == {"dev cider", "reward"}
    assert [text.get_text() for text in panels["CIDEr"].texts] == ["0.3"]  # not the reward's


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
        assert written.size == tuple(np.floor(100 * figure.get_size_inches()).astype(int))
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


def test_the_paper_is_white_beside_nearly_white_pixels(image, tmp_path):
    bright = np.random.default_rng(0).integers(200, 256, (60, 90, 3), dtype="uint8")
    figure = plot_attention(bright, ["it"] * 5, np.full((5, 2, 2), 0.25))
    with Image.open(save_figure(figure, tmp_path / "bright.png")) as written:
        assert written.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_resolution_is_in_dots_per_inch(image, tmp_path):
    figure = plot_annotation_grid(image, (2, 2))
    with Image.open(save_figure(figure, tmp_path / "figure.png", dpi=50)) as written:
        assert written.size == tuple(np.floor(50 * figure.get_size_inches()).astype(int))


def test_only_png_is_written(image, tmp_path):
    figure = plot_annotation_grid(image, (2, 2))
    with pytest.raises(ValueError, match=r"must end in \.png\. Received: .*figure\.jpg"):
        save_figure(figure, tmp_path / "figure.jpg")
