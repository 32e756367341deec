"""The visual-semantic embedding: ranking loss in NumPy, padding, retrieval after training."""

import keras
import numpy as np
import pytest
from keras import ops

from sat_keras.baselines import VisualSemanticEmbedding


@pytest.fixture
def model():
    return VisualSemanticEmbedding(6, feature_dim=4, embedding_dim=3, joint_dim=5)


@pytest.fixture
def inputs():
    generator = np.random.default_rng(0)
    return {
        "annotations": generator.normal(size=(3, 2, 4)).astype("float32"),
        "token_ids": np.array([[2, 4, 3, 0], [2, 5, 4, 3], [2, 3, 0, 0]], "int32"),
    }


def numpy(outputs):
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def test_vectors_have_unit_length_and_ignore_padding(model, inputs):
    found = numpy(model(inputs))
    for vectors in found.values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    short = ops.convert_to_numpy(model.embed_captions(inputs["token_ids"][2:, :2]))
    np.testing.assert_allclose(found["captions"][2:], short, atol=1e-6)


def test_the_loss_ranks_wrong_captions_and_wrong_pictures(model, inputs):
    found = numpy(model(inputs))
    expected = 0.0
    for k in range(3):
        for other in set(range(3)) - {k}:
            right = found["pictures"][k] @ found["captions"][k]
            wrong_caption = found["pictures"][k] @ found["captions"][other]
            wrong_picture = found["pictures"][other] @ found["captions"][k]
            expected += max(0, 0.2 - right + wrong_caption) + max(0, 0.2 - right + wrong_picture)
    assert float(model.compute_loss(y_pred=model(inputs))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.graph
def test_a_trained_model_finds_the_captions(model, inputs, tmp_path):
    model.compile(keras.optimizers.Adam(0.05))
    steps = keras.tree.map_structure(lambda x: np.concatenate([x] * 40), (inputs, np.zeros(3)))
    model.fit(*steps, batch_size=3, shuffle=False, verbose=0)
    found = numpy(model(inputs))
    nearest = (found["pictures"] @ found["captions"].T).argmax(axis=1)
    np.testing.assert_array_equal(nearest, [0, 1, 2])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(numpy(loaded(inputs))["captions"], found["captions"])
