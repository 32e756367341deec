"""Attention metrics against maps that are drawn by hand."""

import math

import numpy as np
import pytest

from sat_keras.attention_metrics import (
    attention_entropy,
    attention_mass,
    pointing_accuracy,
    total_variation,
)


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
    accuracy, uniform = pointing_accuracy(maps, boxes, (40, 80))
    assert accuracy == pytest.approx(3 / 5)
    assert uniform == pytest.approx((1 + 1 + 0 + 1 + 32) / 32 / 5)


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
    ],
)
def test_bad_maps_and_boxes(call):
    with pytest.raises(ValueError, match=r"(?s)must .* Received: "):
        call()
