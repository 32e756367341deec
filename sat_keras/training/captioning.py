"""Captions and annotation vectors of the pictures of a source."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from sat_keras.backend.progress import track
from sat_keras.captioning.caption import Caption
from sat_keras.captioning.model import CaptionModel, caption_search
from sat_keras.data.images import picture_errors
from sat_keras.data.loaders import PictureSource, input_batches

SEARCH_BATCH = 64  # pictures decoded at a time
# Pictures that pass through the CNN at a time. With VGG16 `evaluate` takes 1.7 GB for 8, 2.4 GB for
# 16 and 5.4 GB for 64.
PIXEL_BATCH = 8


def caption_pictures(
    captioner: CaptionModel, source: Any, image_ids: Sequence[str], **search: Any
) -> list[Caption]:
    """Captions the pictures of a source by search.

    Args:
        captioner: A `CaptionModel`.
        source: `FeatureCache`, or `PictureSource` for a captioner with an encoder.
        image_ids: Sequence of image ids.
        **search: Arguments of `CaptionSearch`, such as `beam_size`.

    Returns:
        List of `Caption`, one per picture.
    """
    number = len(image_ids)
    with picture_errors(), track(number, "Search") as bar:
        inputs = search_inputs(source, image_ids, repeat=True)
        model = caption_search(captioner, **search)
        advance = AdvanceBar(bar, number, len(inputs))
        found = model.predict(inputs, verbose=0, callbacks=[advance])
        return captioner.read({name: x[:number] for name, x in found.items()})


def annotate_pictures(captioner: CaptionModel, source: Any, image_ids: Sequence[str]) -> np.ndarray:
    """Returns the annotation vectors of the pictures of a source.

    Args:
        captioner: A `CaptionModel`.
        source: `FeatureCache`, or `PictureSource` for a captioner with an encoder.
        image_ids: Sequence of image ids.

    Returns:
        Array of shape `(len(image_ids), num_regions, feature_dim)`.
    """
    with picture_errors():
        batches = search_inputs(source, image_ids)
        found = [ops.convert_to_numpy(captioner.annotate(batch)) for batch in batches]
    return np.concatenate(found)


def references_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the captions of each picture.

    Args:
        table: Captions table.

    Returns:
        Dictionary from image id to the list of its captions, in the order of the table.
    """
    return table.groupby("image_id", sort=False)["caption"].agg(list).to_dict()


def search_inputs(source: Any, image_ids: Sequence[str], repeat: bool = False) -> Any:
    """Returns a `tf.data.Dataset` of batches of pictures for `CaptionSearch.predict`.

    Args:
        source: `FeatureCache` or `PictureSource`.
        image_ids: Sequence of image ids.
        repeat: Boolean, whether pictures repeat in the last batch of several, so that all have one
            size. Each size is compiled anew, which takes seconds.
    """
    number, size = len(image_ids), batch_size(source)
    repeated = list(image_ids)[: -number % size] if repeat and number > size else []
    return input_batches([*image_ids, *repeated], source, size)


def batch_size(source: Any, from_cache: int | None = None) -> int:
    """Returns how many pictures of a source to decode at a time, few if the CNN reads them.

    Args:
        source: `FeatureCache` or `PictureSource`.
        from_cache: Integer, pictures of a `FeatureCache`, `SEARCH_BATCH` by default.
    """
    if isinstance(source, PictureSource):
        return PIXEL_BATCH
    return from_cache or SEARCH_BATCH


class AdvanceBar(keras.callbacks.Callback):
    """Advances a progress bar by the pictures of every batch of a prediction.

    Args:
        bar: What `sat_keras.backend.progress.track` yields.
        pictures: Integer, number of pictures.
        batches: Integer, number of batches that hold them.
    """

    # The number is not read from the logs: Keras flattens these and makes numbers of single values.

    def __init__(self, bar: Any, pictures: int, batches: int) -> None:
        super().__init__()
        self.bar = bar
        self.left = pictures
        self.of_batch = -(-pictures // max(batches, 1))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        number = min(self.of_batch, self.left)
        self.left -= number
        self.bar.update(number)
