"""Re-ranking: features by hand, the line search against a grid, the weights against enumeration."""

import itertools

import numpy as np
import pytest
from keras import ops

from sat_keras.baselines import MaximumEntropy, VisualSemanticEmbedding
from sat_keras.baselines.reranking import (
    FEATURES,
    Candidates,
    find_candidates,
    line_search,
    sentence_features,
    sentence_statistics,
    tune_weights,
)
from sat_keras.captioning.caption import Caption
from sat_keras.config import Config
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.evaluation.metrics import bleu_of_sums, corpus_bleu

TEXTS = [
    ["a dog", "a red dog runs on grass", "a cat runs on grass", "dog"],
    ["a cat sits on a mat", "a cat", "the dog sits on the mat", "cat cat"],
    ["two men ride a bike", "two men ride", "men", "a man rides a bike down a road"],
]
REFERENCES = [
    ["a red dog runs on the grass", "the dog runs on grass"],
    ["a cat sits on the mat", "a small cat sits on a mat"],
    ["two men ride a bike down a road", "men on bikes"],
]


def caption(text, log_probability):
    return Caption(text, text.split(), None, None, log_probability)


@pytest.fixture
def candidates():
    generator = np.random.default_rng(0)
    return Candidates(TEXTS, generator.normal(size=(3, 4, len(FEATURES))))


@pytest.fixture
def statistics(candidates):
    return sentence_statistics(candidates, REFERENCES)


def bleu4(texts):
    truths = [[reference.split() for reference in picture] for picture in REFERENCES]
    return corpus_bleu([text.split() for text in texts], truths)[3]


def test_features_are_those_of_the_table():
    captions = [caption("A red dog and a dog.", -2.0), caption("cat", -3.0), caption("", -9.0)]
    found = sentence_features(captions, ["dog", "red", "grass", "cat"], [0.5, -0.1, 0.0])
    expected = {
        "log_probability": [-2, -3, -9],
        "words": [6, 1, 0],
        "mean_log_probability": [-2 / 7, -3 / 2, -9],
        "log_rank": [0, np.log(2), np.log(3)],
        "mentioned": [2, 1, 0],
        "coverage": [2 / 4, 1 / 4, 0],
        "similarity": [0.5, -0.1, 0],
    }
    assert tuple(expected) == FEATURES
    np.testing.assert_allclose(found, np.transpose(list(expected.values())))
    assert not sentence_features(captions, [], [0, 0, 0])[:, 4:].any()


def test_statistics_give_the_bleu_of_any_choice(statistics):
    for chosen in itertools.product(range(4), repeat=3):
        texts = [TEXTS[picture][i] for picture, i in enumerate(chosen)]
        sums = sum(statistics[picture, i] for picture, i in enumerate(chosen))
        assert bleu_of_sums(sums)[-1] == pytest.approx(bleu4(texts))


@pytest.mark.parametrize("seed", range(20))
def test_a_line_search_finds_the_best_of_a_fine_grid(statistics, seed):
    offsets, slopes = np.random.default_rng(seed).normal(size=(2, 3, 4)).round(1)
    # Lines whose slopes differ by 0.1 cross within +-40, and at no point of this grid.
    grid = np.linspace(-40, 40, 20001) + 1 / 3000
    winners = (offsets + grid[:, None, None] * slopes).argmax(axis=-1)
    values = bleu_of_sums(statistics[np.arange(3), winners].sum(axis=1))[:, -1]
    step, value = line_search(offsets, slopes, statistics)
    assert value == pytest.approx(values.max())
    at_step = (offsets + step * slopes).argmax(axis=-1)
    assert bleu_of_sums(statistics[np.arange(3), at_step].sum(axis=0))[-1] == pytest.approx(value)


def test_a_line_without_changes_has_the_step_0(statistics):
    step, value = line_search(np.eye(3, 4), np.ones((3, 4)), statistics)
    assert step == 0
    assert value == pytest.approx(bleu4([TEXTS[0][0], TEXTS[1][1], TEXTS[2][2]]))


def test_tuned_weights_choose_the_best_sentences(candidates, statistics):
    best = max(itertools.product(*TEXTS), key=bleu4)
    weights, value = tune_weights(candidates.features, statistics)
    assert candidates.best(weights) == list(best)
    assert value == pytest.approx(bleu4(best))


def test_weights_have_the_units_of_the_features(candidates, statistics):
    units = np.array([10.0, 1e-3, 1, 1, 1, 1, 0])  # a feature of 0 everywhere is no feature
    weights, value = tune_weights(candidates.features * units, statistics)
    scaled = Candidates(TEXTS, candidates.features * units)
    assert bleu4(scaled.best(weights)) == pytest.approx(value)


def test_candidates_are_the_beam_of_the_captioner_with_their_similarity():
    tokenizer = Tokenizer(["", "<unk>", "<start>", "<end>", "a", "dog", "runs", "red"])
    config = Config.tiny().replace(hidden_dim=3, grid_shape=(1, 2), feature_dim=4, max_length=3)
    captioner = MaximumEntropy(config, tokenizer, hash_bits=6)
    embedding = VisualSemanticEmbedding(8, 4, embedding_dim=3, joint_dim=5)
    generator = np.random.default_rng(0)
    for weight in captioner.weights:
        weight.assign(generator.normal(size=weight.shape))
    annotations = generator.normal(size=(3, 2, 4)).astype("float32")
    found = find_candidates(captioner, embedding, tokenizer, [annotations[:2], annotations[2:]], 4)
    assert found.features.shape == (3, 4, len(FEATURES))
    search = {"beam_size": 4, "num_results": 4, "length_penalty": 0.0}
    expected = captioner.caption(annotations=annotations, **search)
    probabilities = ops.convert_to_numpy(captioner.detector(annotations)["probabilities"])
    for b, captions in enumerate(expected):
        assert found.texts[b] == [caption.text for caption in captions]
        ids = tokenizer(found.texts[b])[:, 1:].to_tensor(0)
        vectors = ops.convert_to_numpy(embedding.embed_captions(ids.numpy()))
        picture = ops.convert_to_numpy(embedding.embed_pictures(annotations[b : b + 1]))[0]
        detected = probabilities[b] >= min(0.5, probabilities[b].min())  # three words, so all
        words = np.array(captioner.detector.words)[detected]
        rows = sentence_features(captions, words.tolist(), vectors @ picture)
        np.testing.assert_allclose(found.features[b], rows, atol=1e-4)


def test_a_picture_with_fewer_sentences_repeats_its_best():
    tokenizer = Tokenizer(["", "<unk>", "<start>", "<end>", "dog"])
    config = Config.tiny().replace(hidden_dim=3, grid_shape=(1, 2), feature_dim=4, max_length=1)
    captioner = MaximumEntropy(config, tokenizer, hash_bits=6)
    embedding = VisualSemanticEmbedding(5, 4, embedding_dim=3, joint_dim=5)
    found = find_candidates(captioner, embedding, tokenizer, [np.ones((1, 2, 4), "float32")], 4)
    assert sorted(found.texts[0][:2]) == ["", "dog"]
    assert found.texts[0][2:] == found.texts[0][:1] * 2
    np.testing.assert_array_equal(found.features[0, 2:], found.features[0, :1].repeat(2, axis=0))
