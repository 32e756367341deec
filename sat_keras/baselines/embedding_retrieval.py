"""Visual-semantic embedding of Kiros et al.: pictures and captions as vectors of one space."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from sat_keras.config.config import Config
from sat_keras.data.loaders import Source, input_batches
from sat_keras.data.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("sat_keras")
class VisualSemanticEmbedding(keras.Model):
    """Embeds pictures and captions so that a picture is near its captions.

    1. `x = normalize(W v)`, with `v` the mean annotation vector scaled to unit length
    2. `s = normalize(GRU(E y_1, ..., E y_C))`, the last state of a GRU over the caption
    3. `L = sum_{k != l} max(0, m - x_k . s_k + x_k . s_l) + max(0, m - x_k . s_k + x_l . s_k)`

    A batch holds one caption of each picture; the other pictures' captions are the wrong ones.
    Retrieval returns the train caption whose `s` is nearest to the picture's `x`.

    Args:
        vocabulary_size: Integer, number of token ids.
        feature_dim: Integer, size of an annotation vector.
        embedding_dim: Integer, size of `E y`.
        joint_dim: Integer, size of `x` and `s`.
        margin: Float `m`.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `annotations`, shape `(batch_size, num_regions, feature_dim)`, and
            `token_ids`, integers of shape `(batch_size, steps)`, 0 at padding.

    Returns:
        Dictionary of `pictures` and `captions`, unit vectors of shape `(batch_size, joint_dim)`.

    Example:

    >>> model = VisualSemanticEmbedding(vocabulary_size=100, feature_dim=8)
    >>> annotations, token_ids = keras.random.normal((2, 4, 8)), keras.ops.ones((2, 5), "int32")
    >>> model({"annotations": annotations, "token_ids": token_ids})["pictures"].shape
    (2, 1024)

    Reference:
        [Kiros et al., 2014](https://arxiv.org/abs/1411.2539), section 2.2, with the sizes of the
        authors' published code (`visual-semantic-embedding`).
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        embedding_dim: int = 300,
        joint_dim: int = 1024,
        margin: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.feature_dim = feature_dim
        self.embedding_dim = embedding_dim
        self.joint_dim = joint_dim
        self.margin = margin
        self.projection = keras.layers.Dense(joint_dim, name="projection", dtype=self.dtype_policy)
        self.embedding = keras.layers.Embedding(
            vocabulary_size,
            embedding_dim,
            mask_zero=True,
            name="embedding",
            dtype=self.dtype_policy,
        )
        self.sentence = keras.layers.GRU(joint_dim, name="sentence", dtype=self.dtype_policy)
        self.projection.build((None, feature_dim))
        self.embedding.build(None)
        self.sentence.build((None, None, embedding_dim))
        self.built = True

    def embed_pictures(self, annotations: Any) -> Any:
        """Computes the pictures' vectors.

        Args:
            annotations: Tensor of shape `(batch_size, num_regions, feature_dim)`.

        Returns:
            Tensor of shape `(batch_size, joint_dim)`.
        """
        picture = ops.normalize(ops.mean(annotations, axis=1), axis=-1)
        return ops.normalize(self.projection(picture), axis=-1)

    def embed_captions(self, token_ids: Any) -> Any:
        """Computes the captions' vectors.

        Args:
            token_ids: Integer tensor of shape `(batch_size, steps)`, 0 at padding.

        Returns:
            Tensor of shape `(batch_size, joint_dim)`.
        """
        mask = self.embedding.compute_mask(token_ids)
        return ops.normalize(self.sentence(self.embedding(token_ids), mask=mask), axis=-1)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pictures": self.embed_pictures(inputs["annotations"]),
            "captions": self.embed_captions(inputs["token_ids"]),
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the ranking loss of the class's description.

        Args:
            x, y, sample_weight, training: Not used.
            y_pred: The result of the call.

        Returns:
            Scalar tensor.
        """
        # (pictures, captions)
        similarity = ops.matmul(y_pred["pictures"], ops.transpose(y_pred["captions"]))
        similarity = ops.cast(similarity, "float32")
        right = ops.diagonal(similarity)
        wrong_caption = ops.relu(self.margin - right[:, None] + similarity)
        wrong_picture = ops.relu(self.margin - right[None] + similarity)
        others = 1 - ops.eye(ops.shape(similarity)[0])
        return ops.sum(others * (wrong_caption + wrong_picture))

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "feature_dim", "embedding_dim", "joint_dim", "margin")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def train_embedding(
    table: Any, tokenizer: Tokenizer, source: Source, config: Config, epochs: int = 5
) -> VisualSemanticEmbedding:
    """Trains a visual-semantic embedding with Adam on batches of 256 captions.

    Args:
        table: Captions table of the train split.
        tokenizer: `Tokenizer` of its captions.
        source: `FeatureCache` of its pictures.
        config: A `Config`; `feature_dim`, `embedding_dim`, `hidden_dim` (size of the joint
            space), `max_length` and `seed` are used.
        epochs: Integer, passes over the captions.

    Returns:
        `VisualSemanticEmbedding`, trained.
    """
    keras.utils.set_random_seed(config.seed)
    model = VisualSemanticEmbedding(
        tokenizer.vocabulary_size,
        config.feature_dim,
        embedding_dim=config.embedding_dim,
        joint_dim=config.hidden_dim,
    )
    # The authors' learning rate of 2e-4 is for batches of 128 and 15 epochs.
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=2.0))
    rows, image_ids = pd.factorize(table["image_id"])
    inputs = {
        "annotations": _mean_annotations(source, list(image_ids))[rows],
        "token_ids": _token_ids(tokenizer, list(table["caption"]), config.max_length),
    }
    model.fit(inputs, batch_size=256, epochs=epochs, verbose=0)
    return model


def _token_ids(tokenizer: Tokenizer, captions: Sequence[str], max_length: int) -> np.ndarray:
    """Returns the ids of captions without the start, with the end where it fits, padded with 0."""
    return tokenizer(captions)[:, 1 : max_length + 2].to_tensor(0).numpy()


def _mean_annotations(source: Source, image_ids: Sequence[str]) -> np.ndarray:
    """Returns the pictures' mean annotation vectors, shape `(pictures, 1, feature_dim)`."""
    return np.concatenate(
        [
            batch["annotations"].numpy().astype("float32").mean(axis=1, keepdims=True)
            for batch in input_batches(image_ids, source)
        ]
    )


def caption_vectors(
    model: VisualSemanticEmbedding, tokenizer: Tokenizer, captions: Sequence[str], max_length: int
) -> np.ndarray:
    """Computes the vectors of many captions, in batches.

    Args:
        model: `VisualSemanticEmbedding`.
        tokenizer: `Tokenizer` of its training.
        captions: Sequence of captions.
        max_length: Integer, words of a caption that are read.

    Returns:
        Array of shape `(len(captions), joint_dim)`.
    """
    token_ids = _token_ids(tokenizer, captions, max_length)
    return np.concatenate(
        [
            ops.convert_to_numpy(model.embed_captions(token_ids[start : start + 1024]))
            for start in range(0, len(captions), 1024)
        ]
    )


def embedding_captions(
    model: VisualSemanticEmbedding,
    tokenizer: Tokenizer,
    source: Source,
    image_ids: Sequence[str],
    captions: Sequence[str],
    max_length: int,
) -> dict[str, str]:
    """Returns for each picture the caption whose vector is nearest to the picture's.

    Args:
        model: `VisualSemanticEmbedding`.
        tokenizer: `Tokenizer` of its training.
        source: `FeatureCache` of the pictures.
        image_ids: Pictures to caption.
        captions: Captions to choose from, those of the train split.
        max_length: Integer, words of a caption that are read.

    Returns:
        Dictionary from image id to caption.
    """
    captions = list(dict.fromkeys(captions))
    vectors = caption_vectors(model, tokenizer, captions, max_length)
    found = model.embed_pictures(_mean_annotations(source, image_ids))
    pictures = ops.convert_to_numpy(found)
    best = (pictures @ vectors.T).argmax(axis=1)
    return {image_id: captions[i] for image_id, i in zip(image_ids, best, strict=True)}
