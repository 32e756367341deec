"""Attention measures on maps whose values are known."""

import itertools
import math

import numpy as np
import pytest

from sat_keras.analysis import (
    attention_entropy,
    attention_mass,
    attention_scores,
    attention_statistics,
    box_sizes,
    centre_map,
    coverage,
    pointing_accuracy,
    sameness,
    total_variation,
)
from sat_keras.analysis.pointing import BOX_SIZES
from sat_keras.analysis.statistics import BASELINES


def one_hot_map(row, column, grid=(4, 8)):
    attention_map = np.zeros(grid)
    attention_map[row, column] = 1.0
    return attention_map


def test_pointing_accuracy():
    # Cells of 10 x 10 pixels; the centre of cell (1, 2) is x = 25, y = 15.
    maps = np.stack([one_hot_map(1, 2)] * 5)
    boxes = [
        [20, 10, 30, 20],
        [25, 15, 26, 16],  # low edges are inside
        [20, 10, 25, 20],  # high edges are not
        [10, 20, 20, 30],  # rows and columns swapped
        [0, 0, 80, 40],
    ]
    accuracy, uniform, _ = pointing_accuracy(maps, boxes, (40, 80))
    assert accuracy == pytest.approx(3 / 5)
    assert uniform == pytest.approx((1 + 1 + 0 + 1 + 32) / 32 / 5)


def test_centre_map():
    weights = centre_map((3, 4), width=0.5)
    assert weights.sum() == pytest.approx(1)
    # Cell (0, 1): its centre is 1/3 of the height and 1/8 of the width from the middle.
    expected = math.exp(-((1 / 3) ** 2) / (2 * 0.25))
    assert weights[0, 1] / weights[1, 1] == pytest.approx(expected)
    expected = math.exp(-((3 / 8) ** 2 - (1 / 8) ** 2) / (2 * 0.25))
    assert weights[1, 0] / weights[1, 1] == pytest.approx(expected)
    np.testing.assert_allclose(weights, weights[::-1, ::-1])


def test_the_centre_baseline_points_at_the_cells_in_the_middle():
    # Of the 4 x 8 cells of 10 x 10 pixels, (1, 3), (1, 4), (2, 3) and (2, 4).
    boxes = [[30, 10, 50, 30], [30, 10, 40, 20], [0, 0, 20, 10]]
    maps = np.ones((3, 4, 8))
    assert pointing_accuracy(maps, boxes, (40, 80)).centre == pytest.approx((1 + 1 / 4 + 0) / 3)
    expected = [centre_map((4, 8))[1:3, 3:5].sum(), centre_map((4, 8))[1, 3]]
    mass = attention_mass(maps[:2], boxes[:2], (40, 80))
    assert mass.centre == pytest.approx(np.mean(expected))


def test_maps_at_the_centre_get_the_centre_figure():
    boxes = np.array([[5, 5, 30, 20], [30, 10, 60, 35], [41, 3, 79, 39]])
    maps = np.stack([centre_map((4, 8))] * 3)
    for metric in (pointing_accuracy, attention_mass):
        score = metric(maps, boxes, (40, 80))
        assert score.value == pytest.approx(score.centre)
        assert score.centre != pytest.approx(score.uniform)


def test_of_several_objects_any_will_do_and_overlaps_count_once():
    maps = np.stack([one_hot_map(1, 2)] * 2)
    boxes = [[[0, 0, 10, 10], [20, 10, 30, 20]], [[0, 0, 10, 10], [30, 10, 40, 20]]]
    assert pointing_accuracy(maps, boxes, (40, 80)).value == pytest.approx(1 / 2)
    overlapping = [[20, 10, 26, 20], [24, 10, 30, 15]]  # 6 x 10 and 6 x 5, of which 2 x 5 shared
    score = attention_mass(maps[:1], [overlapping], (40, 80))
    assert score.value == pytest.approx((60 + 30 - 10) / 100)
    assert score.uniform == pytest.approx((60 + 30 - 10) / 3200)


def test_uniform_maps_get_the_uniform_figure():
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 20, size=(20, 2))
    boxes = np.concatenate([low, low + generator.uniform(5, 20, size=(20, 2))], axis=1)
    maps = np.full((20, 4, 8), 1 / 32)
    for metric in (pointing_accuracy, attention_mass):
        score = metric(maps, boxes, (40, 80))
        assert score.value == pytest.approx(score.uniform)
        assert 0 < score.uniform < 1
    area = (np.minimum(boxes[:, 2:], [80, 40]) - boxes[:, :2]).prod(axis=1) / (40 * 80)
    assert attention_mass(maps, boxes, (40, 80)).uniform == pytest.approx(area.mean())


def test_attention_mass_counts_cells_by_their_covered_part():
    attention_map = 0.5 * one_hot_map(1, 2) + 0.25 * one_hot_map(1, 3) + 0.25 * one_hot_map(3, 7)
    box = [25, 10, 40, 15]  # a quarter of cell (1, 2), half of (1, 3)
    score = attention_mass(3 * attention_map[None], [box], (40, 80))
    assert score.value == pytest.approx(0.5 / 4 + 0.25 / 2)
    assert score.uniform == pytest.approx(15 * 5 / (40 * 80))


def test_boxes_are_cut_off_at_the_picture():
    maps = np.stack([one_hot_map(0, 0), one_hot_map(3, 7)])
    boxes = [[-30, -30, 5, 10], [70, 35, 300, 300]]  # half of each corner's cell
    score = attention_mass(maps, boxes, (40, 80))
    assert score.value == pytest.approx(0.5)
    assert score.uniform == pytest.approx(0.5 / 32)


def test_attention_entropy():
    maps = np.stack([one_hot_map(0, 0), np.full((4, 8), 1 / 32), np.full((4, 8), 7.0)])
    np.testing.assert_allclose(attention_entropy(maps), [0, math.log(32), math.log(32)])
    assert attention_entropy(maps[None]).shape == (1, 3)


def test_total_variation():
    half = (one_hot_map(0, 0) + one_hot_map(1, 1)) / 2
    maps = np.stack([one_hot_map(0, 0), half, half, one_hot_map(2, 2)])
    np.testing.assert_allclose(total_variation(maps), [0.5, 0, 1])
    assert total_variation(maps[None]).shape == (1, 3)
    assert total_variation(maps[:1]).shape == (0,)


def test_coverage_is_the_effective_share_of_regions():
    two = np.stack([one_hot_map(0, 0), one_hot_map(3, 7)])
    assert coverage(two) == pytest.approx(2 / 32)
    assert coverage(two[:1]) == pytest.approx(1 / 32)
    assert coverage(np.ones((3, 4, 8))) == pytest.approx(1)
    uneven = np.stack([one_hot_map(0, 0), 5 * one_hot_map(0, 0), one_hot_map(0, 1)])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert coverage(uneven) == pytest.approx(math.exp(entropy) / 32)
    assert coverage(two[None]).shape == (1,)


def test_sameness_is_the_mean_overlap_of_all_pairs():
    generator = np.random.default_rng(0)
    maps = generator.dirichlet(np.ones(32), size=5).reshape(5, 4, 8)
    overlaps = [np.minimum(a, b).sum() for a, b in itertools.combinations(maps, 2)]
    assert sameness(7 * maps) == pytest.approx(np.mean(overlaps))
    assert sameness(maps[:2]) == pytest.approx(1 - total_variation(maps[:2])[0])
    assert sameness(np.stack([maps[0]] * 3)) == pytest.approx(1)
    assert sameness(np.stack([one_hot_map(0, 0), one_hot_map(1, 1)])) == 0
    assert sameness(np.stack([maps, maps])).shape == (2,)


def test_statistics_are_sums_and_numbers_of_each_picture():
    half = (one_hot_map(0, 0) + one_hot_map(1, 1)) / 2
    maps = [[one_hot_map(0, 0), half, half], [half, half], [half], np.zeros((0, 4, 8))]
    gates = [np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.7]), np.array([0.5]), np.zeros(0)]
    boxes = [[None, [0, 0, 10, 10], [10, 10, 80, 40]], [None, None], [None], []]
    statistics = attention_statistics(maps, gates, boxes, (40, 80))
    mean = 2 / 3 * one_hot_map(0, 0) + 1 / 3 * one_hot_map(1, 1)
    nothing = [(0, 0)] * 3
    centre = centre_map((4, 8))
    always = (mean + half + half) / 3  # of the three captions with words: 5/9 and 4/9
    expected = {
        "entropy": [(2 * math.log(2), 3), (2 * math.log(2), 2), (math.log(2), 1), (0, 0)],
        "total_variation": [(0.5, 2), (0, 1), (0, 0), (0, 0)],
        "coverage": [(coverage(mean[None]), 1), (2 / 32, 1), (2 / 32, 1), (0, 0)],
        "gate": [(0.6, 3), (1.1, 2), (0.5, 1), (0, 0)],
        "sameness": [((0.5 + 0.5 + 1) / 3, 1), (1, 1), (0, 0), (0, 0)],
        "pointing_accuracy": [(1 / 2 + 1 / 2, 2), *nothing],
        "pointing_accuracy_uniform": [(1 / 32 + 21 / 32, 2), *nothing],
        "pointing_accuracy_centre": [(1, 2), *nothing],
        "pointing_accuracy_mean_map": [(1, 2), *nothing],
        "pointing_lag": [(1 / 2 - 1 / 2, 1), *nothing],
        "attention_mass": [(1, 2), *nothing],
        "attention_mass_mean_map": [(always[0, 0] + always[1, 1], 2), *nothing],
        "attention_mass_uniform": [(1 / 32 + 21 / 32, 2), *nothing],
        "attention_mass_centre": [(centre[0, 0] + centre[1:, 1:].sum(), 2), *nothing],
    }
    of_sizes = {name for name in statistics if set(BOX_SIZES) & set(name.split("_"))}
    assert set(statistics) - of_sizes == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(statistics[name], values, err_msg=name)
    assert set(attention_statistics(maps, gates)) == {
        *("entropy", "total_variation", "coverage", "gate", "sameness")
    }


def test_boxes_count_by_their_share_of_the_picture():
    """On 3 x 3 cells of 10 pixels: shares of 1/36, 1/9 and 5/9, that of two boxes as one."""
    sizes = {"small": [0, 0, 5, 5], "medium": [10, 10, 20, 20]}
    sizes["large"] = [[0, 0, 30, 10], [0, 0, 10, 30]]
    maps = np.zeros((4, 3, 3))
    maps[0, 0] = [0.8, 0.2, 0.0]
    maps[1] = 1 / 9
    maps[2, 2] = [0.1, 0.0, 0.9]
    maps[3, 1, 1] = 1.0
    statistics = attention_statistics([maps], [np.ones(4)], [[*sizes.values(), None]], (30, 30))
    centre, mean = centre_map((3, 3)), maps.mean(axis=0)
    inside = {"small": np.zeros((3, 3)), "medium": np.zeros((3, 3)), "large": np.zeros((3, 3))}
    inside["small"][0, 0] = 1 / 4
    inside["medium"][1, 1] = 1
    inside["large"][0] = inside["large"][:, 0] = 1
    # The middle of the first cell, at 5, is just outside the small box.
    hits = {"small": (0, 0, 0, 0), "medium": (1 / 9, 1 / 9, 1, 1), "large": (0, 5 / 9, 0, 0)}
    for size, number in zip(sizes, range(3), strict=True):
        masses = [(inside[size] * x).sum() for x in (maps[number], np.full((3, 3), 1 / 9))]
        masses += [(inside[size] * x).sum() for x in (centre, mean)]
        for base, mass, hit in zip(("", *BASELINES), masses, hits[size], strict=True):
            name = f"attention_mass_{size}{base}"
            np.testing.assert_allclose(statistics[name], [(mass, 1)], err_msg=name)
            name = f"pointing_accuracy_{size}{base}"
            np.testing.assert_allclose(statistics[name], [(hit, 1)], err_msg=name)
    scores, intervals = attention_scores(statistics, samples=10)
    assert scores["attention_mass_small"] == pytest.approx(20)  # a quarter of 0.8
    assert intervals["attention_mass_small_mean_map"] == pytest.approx([100 * mean[0, 0] / 4] * 2)


def test_limits_of_sizes():
    found = box_sizes([0.0, 0.049, 0.05, 0.2, 0.201, 1.0])
    assert found.tolist() == ["small", "small", "medium", "medium", "large", "large"]


def test_scores_are_means_over_words_with_intervals_over_pictures():
    generator = np.random.default_rng(0)
    numbers = generator.integers(1, 9, size=400)
    means = generator.normal(0.5, 0.1, size=400)
    values = np.stack([means * numbers, numbers], axis=1)
    half = np.where(np.arange(400)[:, None] % 2, values, 0)
    statistics = {"coverage": values, "entropy": values, "pointing_accuracy": half}
    statistics["sameness"] = np.zeros((400, 2))
    scores, intervals = attention_scores(statistics, samples=2000)
    assert list(scores) == list(intervals) == ["coverage", "entropy", "pointing_accuracy"]
    mean = (means * numbers).sum() / numbers.sum()
    assert scores["entropy"] == pytest.approx(mean)
    assert scores["coverage"] == pytest.approx(100 * mean)
    assert scores["pointing_accuracy"] == pytest.approx(
        100 * np.average(means[1::2], weights=numbers[1::2])
    )
    # The standard error of a ratio of sums (delta method), at half the number of pictures.
    for name, part in (("coverage", slice(None)), ("pointing_accuracy", slice(1, None, 2))):
        m, n = means[part], numbers[part]
        residuals = n * (m - np.average(m, weights=n))
        error = 100 * residuals.std() / np.sqrt(len(n)) / n.mean()
        low, high = intervals[name]
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
        assert low < scores[name] < high


BOX = [[0, 0, 5, 5]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: attention_entropy(np.zeros((2, 4, 8))),
        lambda: attention_entropy(np.full((2, 4, 8), np.nan)),
        lambda: attention_entropy(np.ones(8)),
        lambda: total_variation(-np.ones((2, 4, 8))),
        lambda: pointing_accuracy(np.ones((0, 4, 8)), np.zeros((0, 4)), (40, 80)),
        lambda: pointing_accuracy(np.ones((4, 8)), BOX, (40, 80)),
        lambda: pointing_accuracy(np.ones((2, 4, 8)), BOX, (40, 80)),
        lambda: attention_mass(np.ones((1, 4, 8)), [[5, 0, 5, 5]], (40, 80)),
        lambda: attention_mass(np.full((1, 4, 8), np.inf), BOX, (40, 80)),
        lambda: attention_mass(np.ones((1, 4, 8)), [np.zeros((0, 4))], (40, 80)),
        lambda: attention_mass(np.ones((1, 4, 8)), [[0, 0, 5]], (40, 80)),
        lambda: coverage(np.zeros((2, 4, 8))),
        lambda: sameness(np.ones((1, 4, 8))),
        lambda: sameness(np.ones((4, 8))),
    ],
)
def test_bad_maps_and_boxes(call):
    with pytest.raises(ValueError, match=r"(?s)must .* Received: "):
        call()
