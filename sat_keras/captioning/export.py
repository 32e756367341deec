"""Exports of a captioner that run without this package: SavedModel, ONNX and LiteRT.

A SavedModel is the whole captioner with its beam search: pixels in; sentence, words, attention and
gate out. ONNX and LiteRT have no strings and no beam search, so there the captioner is
two models and a list of words, and the search is the caller's loop:

| file | inputs | outputs |
|---|---|---|
| `start` | `images`, one picture, RGB in 0..255 | `annotations`, `keys`, `hidden`, `cell` |
| `step` | those and `token_ids`, shape `(1, beams)` | `log_probabilities`, `hidden`, `cell`, ... |
| `vocabulary.json` | | the words in the order of their ids, and the ids of start and end |

`start` gives states of one beam; repeat them for all beams. The inputs of `step` are named
`args_0_token_ids` and so on in ONNX, and `args_0`, `args_0_1`, ... in the alphabetical order of the
names in LiteRT.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

from sat_keras.data.files import replacing, write_json
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
FORMATS = ("tf_saved_model", *SUFFIXES)


class Start(keras.Model):
    """Encodes pictures and predicts the decoder's first state.

    Args:
        captioner: A captioner with an encoder.

    Call arguments:
        images: RGB pictures in 0..255, shape `(batch_size, height, width, 3)`.

    Returns:
        Dictionary of `annotations`, `keys`, `hidden` and `cell`, the inputs of `Step` with one
        beam.
    """

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self.captioner = captioner
        self.built = True

    def call(self, images: Any) -> dict[str, Any]:
        decoder = self.captioner.decoder
        annotations = self.captioner.annotate({"images": images})
        annotations, keys = decoder.read_annotations(annotations)
        hidden, cell = decoder.initial_state(annotations)
        return {"annotations": annotations, "keys": keys, "hidden": hidden, "cell": cell}


class Step(keras.Model):
    """Decodes one word further.

    Args:
        captioner: A captioner.

    Call arguments:
        inputs: Dictionary of `token_ids`, shape `(batch_size, beams)`, `hidden` and `cell`, shape
            `(batch_size, beams, hidden_dim)`, `annotations` and `keys`.

    Returns:
        Dictionary of `log_probabilities` in nats, the new `hidden` and `cell`,
        `attention_weights` and `gate`.
    """

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self.captioner = captioner
        self.built = True

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        states = {"hidden": inputs["hidden"], "cell": inputs["cell"]}
        logits, states, record = self.captioner.decoder.step(
            inputs["token_ids"], states, inputs["annotations"], inputs["keys"]
        )
        log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        return {"log_probabilities": log_p, **states, **record}


def export_saved_model(captioner: Any, search: Any, path: str | os.PathLike) -> None:
    """Writes a TensorFlow SavedModel of the whole captioner.

    Its function `serve` takes RGB pictures, uint8 of shape `(batch_size, height, width, 3)`, and
    returns `sentence`, strings of shape `(batch_size,)`, `words`, strings of shape
    `(batch_size, steps)`, empty after the last word, `log_probability`, shape `(batch_size,)`, in
    nats, and of a captioner with attention `attention`, shape `(batch_size, steps, rows, columns)`,
    and `gate`, shape `(batch_size, steps)`.

    Args:
        captioner: A captioner with an encoder and a tokenizer.
        search: Its `CaptionSearch`.
        path: Folder to write.
    """
    import tensorflow as tf

    vocabulary = [
        "" if i in (PAD_ID, START_ID, END_ID) else word
        for i, word in enumerate(captioner.tokenizer.get_vocabulary())
    ]
    grid = captioner.config.grid_shape

    def serve(images: Any) -> dict[str, Any]:
        found = search({"images": images})
        words = tf.gather(tf.constant(vocabulary), found["token_ids"])
        served = {
            "sentence": tf.strings.strip(tf.strings.reduce_join(words, axis=1, separator=" ")),
            "words": words,
            "log_probability": found["log_probability"],
        }
        if "attention_weights" in found:
            maps = tf.reshape(found["attention_weights"], (-1, tf.shape(words)[1], *grid))
            served |= {"attention": maps, "gate": found["gate"]}
        return served

    archive = keras.export.ExportArchive()
    archive.track(search)
    archive.add_endpoint(
        "serve", serve, [tf.TensorSpec((None, None, None, 3), "uint8", name="images")]
    )
    archive.write_out(os.fspath(path), verbose=False)


def export_steps(captioner: Any, path: str | os.PathLike, format: str, beams: int) -> None:
    """Writes `start`, `step` and `vocabulary.json` into a folder.

    Args:
        captioner: A captioner with an encoder and a tokenizer.
        path: Folder to write.
        format: `"onnx"` or `"litert"`.
        beams: Integer, hypotheses that a step continues.

    Raises:
        ImportError: If Keras needs a package for the format.
        ValueError: If the captioner has no attention.
    """
    if not hasattr(captioner, "decoder"):
        raise ValueError(
            "ONNX and LiteRT hold one step of the decoder with attention: export other captioners "
            f'with `format="tf_saved_model"`. Received: system={captioner.config.system!r}'
        )
    start, step = Start(captioner), Step(captioner)
    side, config = captioner.config.image_size, captioner.config
    states = (1, beams, config.hidden_dim)
    shapes = {
        "token_ids": (1, beams),
        "hidden": states,
        "cell": states,
        "annotations": (1, config.num_regions, config.feature_dim),
        "keys": (1, config.num_regions, config.attention_dim),
    }
    picture = keras.InputSpec(shape=(1, side, side, 3), dtype="uint8")
    inputs = {
        name: keras.InputSpec(shape=shape, dtype="int32" if name == "token_ids" else "float32")
        for name, shape in shapes.items()
    }
    start(ops.zeros((1, side, side, 3), "uint8"))
    step({name: ops.zeros(spec.shape, spec.dtype) for name, spec in inputs.items()})
    with replacing(path) as partial:
        Path(partial).mkdir()
        for name, model, signature in (("start", start, picture), ("step", step, inputs)):
            file = Path(partial, name + SUFFIXES[format])
            model.export(file, format=format, verbose=False, input_signature=[signature])
        vocabulary = {
            "words": captioner.tokenizer.get_vocabulary(),
            **{"start": START_ID, "end": END_ID, "forbidden": [PAD_ID, UNK_ID, START_ID]},
            **{"beams": beams, "image_size": side, "grid_shape": list(config.grid_shape)},
        }
        write_json(Path(partial, "vocabulary.json"), vocabulary)
