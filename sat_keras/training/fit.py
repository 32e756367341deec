"""Training: the optimizer, what happens after every epoch, and the function that does it all."""

import contextlib
import importlib.util
import json
import math
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops

from sat_keras.backend.devices import Devices
from sat_keras.backend.xla import fuse_updates
from sat_keras.data.features import extract_features
from sat_keras.data.images import load_image, picture_errors
from sat_keras.data.loaders import PictureSource, caption_batches, pad_rows, picture_batches
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.evaluation.scores import score_captions
from sat_keras.paper.captioner import Captioner, caption_search
from sat_keras.training.pretrained import MODEL_FILE, copy_captioner, save_model

LOG_FILE = "log.csv"
BACKUP_FOLDER = "backup"
TENSORBOARD_FOLDER = "tensorboard"
# Pictures decoded at a time.
SEARCH_BATCH = 64


def make_optimizer(config, steps_per_epoch):
    """Make the optimizer of a config.

    Args:
        config: A `Config`.
        steps_per_epoch: Integer, minibatches an epoch, for the learning rate's schedule.

    Returns:
        A `keras.Optimizer`.
    """
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * steps_per_epoch)
    options = {
        "learning_rate": rate,
        "global_clipnorm": config.clip_norm,
        "use_ema": config.ema_momentum > 0,
        "ema_momentum": config.ema_momentum or None,
    }
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(weight_decay=config.weight_decay, **options)
    classes = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    return classes[config.optimizer](**options)


def compile_captioner(captioner, steps_per_epoch, devices=None):
    """Compile a captioner as its config says.

    XLA compiles the whole step on JAX, which has nothing else. On TensorFlow every caption length
    would compile anew, and on a CPU its matrix products are slower than the plain graph's: there it
    compiles the parts that gain by it.

    Args:
        captioner: A `Captioner`.
        steps_per_epoch: Integer, minibatches an epoch.
        devices: The `Devices` in whose `building` this is called, if they are several.

    Reference:
        Notebook `04_training`.
    """
    optimizer = fuse_updates(make_optimizer(captioner.config, steps_per_epoch))
    captioner.compile(
        optimizer=devices.distribute(optimizer) if devices else optimizer,
        jit_compile=keras.backend.backend() == "jax",
    )


class DevScores(keras.callbacks.Callback):
    """Caption the dev pictures after every epoch by free-running search, and score them.

    Adds `dev_bleu4` and `dev_cider` of the protocol `coco` to the epoch's logs, for early
    stopping, the choice of the checkpoint and the CSV log, all of which must come after it.

    Args:
        images: Data set of the dev pictures for `predict`, in order, without captions.
        references: Dictionary of each picture's references: image id to list of captions, in the
            same order.
        **search: Arguments of `CaptionSearch`.

    Reference:
        Notebook `04_training`.
    """

    def __init__(self, images, references, **search):
        super().__init__()
        self.images = images
        self.references = references
        self.search_options = search
        self.search = None

    def on_epoch_end(self, epoch, logs=None):
        if self.search is None:
            # The one that `Captioner.caption` uses too, so that it is compiled once.
            self.search = caption_search(self.model, **self.search_options)
        captions = self.model.read(self.search.predict(self.images, verbose=0))
        texts = [caption.text for caption in captions]
        candidates = dict(zip(self.references, texts, strict=True))
        metrics = ("bleu", "cider")
        scores = score_captions(candidates, self.references, ["coco"], metrics)["coco"]
        logs["dev_bleu4"] = scores["bleu4"]
        logs["dev_cider"] = scores["cider"]


class ShowCaption(keras.callbacks.Callback):
    """Caption one fixed picture after every epoch, to see the model learn.

    Args:
        inputs: What `Captioner.caption` takes: dictionary of `images` or `annotations` of one
            picture.
        references: List of the picture's captions, the first of which is shown beside it.
    """

    def __init__(self, inputs, references):
        super().__init__()
        self.inputs = inputs
        self.reference = references[0]

    def on_epoch_end(self, epoch, logs=None):
        caption = self.model.caption(**self.inputs)[0]
        print(f"\n  {caption.text!r} for {self.reference!r}")


class CheckFirstLoss(keras.callbacks.Callback):
    """Warn when the first minibatch's cross-entropy is far from `log(vocabulary_size)`.

    An untrained model should find all words about equally likely. If it does not, the initial
    weights or the targets are wrong.

    Args:
        tolerance: Float, largest difference in nats that passes.
    """

    def __init__(self, tolerance=1.0):
        super().__init__()
        self.tolerance = tolerance

    def on_train_batch_end(self, batch, logs=None):
        if batch > 0 or self.model.optimizer.iterations > 1:
            return
        expected = math.log(self.model.decoder.vocabulary_size)
        if abs(logs["cross_entropy"] - expected) > self.tolerance:
            print(
                f"\nWarning: the first cross-entropy should be near log(vocabulary) = "
                f"{expected:.2f} nats a word. Received: {logs['cross_entropy']:.2f}"
            )


class Backup(keras.callbacks.BackupAndRestore):
    """Save the state of the training after every epoch, and go on from there.

    Keras's `BackupAndRestore`, which writes over the only copy: a kill meanwhile would lose
    everything. This one moves the copy before out of the way until the new one is complete.

    Args:
        folder: Where to save it.
    """

    def __init__(self, folder):
        super().__init__(str(folder), delete_checkpoint=False)
        self.folder = Path(folder)
        self.previous = self.folder.with_name(f"{self.folder.name}-previous")
        if self.previous.is_dir() and not self.epochs_done:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.replace(self.previous, self.folder)

    @property
    def epochs_done(self):
        """Integer, epochs that the saved state has behind it; 0 if none is saved."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Keras writes this file last.
            metadata = (self.folder / "training_metadata.json").read_text()
            return int(json.loads(metadata)["epoch"])
        return 0

    def on_epoch_end(self, epoch, logs=None):
        shutil.rmtree(self.previous, ignore_errors=True)
        if self.folder.is_dir():
            os.replace(self.folder, self.previous)
        super().on_epoch_end(epoch, logs)
        shutil.rmtree(self.previous, ignore_errors=True)

    def delete(self):
        """Delete what was saved."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.previous, ignore_errors=True)


class KeepBest(keras.callbacks.Callback):
    """Save the captioner of the best dev score, and stop when it has not improved for long.

    Does what `ModelCheckpoint` and `EarlyStopping` do, and knows the scores of the epochs before a
    training was stopped and resumed, which they forget: they would overwrite a better checkpoint.
    An epoch whose loss is not finite is never the best.

    Args:
        copy: `Captioner` to save, in float32 and not compiled. It gets the trained weights; a
            frozen encoder of its own is saved with it.
        path: Where to save it, `model.keras`.
        monitor: Name of the score in the epoch's logs. More is better.
        patience: Integer, epochs without a better score after which training stops.
        past: The scores of the epochs before, in order.
    """

    def __init__(self, copy, path, monitor, patience, past=()):
        super().__init__()
        self.copy = copy
        self.path = Path(path)
        self.monitor = monitor
        self.patience = patience
        self.best, self.wait = -math.inf, 0
        for score in past:
            self._improves(score)

    @property
    def is_over(self):
        """Boolean, whether the score has not improved for `patience` epochs."""
        return self.wait >= self.patience

    def _improves(self, score):
        improves = score > self.best
        self.best, self.wait = (score, 0) if improves else (self.best, self.wait + 1)
        return improves

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        if self._improves(logs[self.monitor]):
            self.copy.copy_weights(self.model)
            if self.model.encoder is not None:
                self.copy.encoder.set_weights(self.model.encoder.get_weights())
            save_model(self.copy, self.path)
        self.model.stop_training = self.model.stop_training or self.is_over


class EpochLog(keras.callbacks.Callback):
    """Write what is logged as a CSV file with a row an epoch, over all parts of a training.

    Keras's `CSVLogger` appends a second row for an epoch that is done again after a kill, and
    columns without values. This one writes the whole file anew, under a temporary name first. Adds
    `seconds`, the wall time of the epoch with its dev scores, to the logs.

    Args:
        path: The file's path.
        past: Table of the epochs before, as `read_log` reads it.
    """

    def __init__(self, path, past):
        super().__init__()
        self.path = Path(path)
        self.table = past
        self._start = None

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = round(time.perf_counter() - self._start, 2)
        row = pd.DataFrame([{"epoch": epoch, **logs}])
        self.table = row if self.table.empty else pd.concat([self.table, row], ignore_index=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        self.table.to_csv(partial, index=False, float_format="%.6g")
        os.replace(partial, self.path)


def read_log(path, epochs=None):
    """Read the log of a training.

    Args:
        path: The file that `EpochLog` wrote. It may be missing.
        epochs: Integer, number of epochs to read, or `None` for all.

    Returns:
        DataFrame with one row an epoch, the column `epoch` counted from 0.
    """
    if not Path(path).is_file():
        return pd.DataFrame({"epoch": pd.Series(dtype=int)})
    log = pd.read_csv(path)
    return log if epochs is None else log[log["epoch"] < epochs]


def train_captioner(
    config,
    table,
    encoder,
    out,
    features="outputs/features",
    keep_encoder=False,
    allow_truncated=False,
    start=None,
    devices=1,
    verbose=2,
):
    """Train a captioner on a data set, or go on where an earlier call with the same `out` stopped.

    The tokenizer learns its words from the train captions. A frozen encoder's annotation vectors
    are computed once into the folder `features`; one that is trained as well reads pixels. After
    every epoch the dev pictures are captioned by search and scored, and the best weights so far
    (the moving averages, with `config.ema_momentum`) go into `out/model.keras`, in float32. A call
    that was stopped or killed loses the epoch it was in.

    Args:
        config: A `Config` with the encoder's grid and feature size.
        table: Captions table with a train and a dev split, see `sat_keras.datasets`.
        encoder: `ImageEncoder`.
        out: Folder for `model.keras`, `log.csv`, the folder `tensorboard` and, until the training
            is over, the folder `backup`.
        features: Folder of the feature cache, of no effect if the encoder is trained.
        keep_encoder: Boolean, whether a frozen encoder is saved in the model's file as well. One
            that is trained always is.
        allow_truncated: Boolean, whether truncated JPEG files are used as far as they go.
        start: `Captioner` of the same words and sizes to take the first weights from, such as one
            with soft attention for hard attention, or `None` for random ones. Its encoder's are
            taken only where the encoder is trained.
        devices: Integer, number of devices that share every minibatch, see `sat_keras.backend.devices`.
        verbose: 0 for silence, 1 for progress bars, 2 for a line an epoch.

    Returns:
        DataFrame with a row an epoch: `epoch` from 0, `loss`, `cross_entropy` in nats a word,
        `penalty`, `dev_bleu4` in percent, `dev_cider` and `seconds`.

    Raises:
        ValueError: If a split is empty, a picture cannot be read, `start` has other words or sizes,
            there are fewer devices, or several are to train an encoder.
        FloatingPointError: If the loss is no longer a finite number.

    Example:

    >>> table = sat_keras.load_dataset("scenes")
    >>> encoder = make_encoder(Config.scenes(), weights=None)
    >>> log = train_captioner(Config.scenes(), table, encoder, "outputs/scenes")

    Reference:
        Notebook `04_training`.
    """
    out = Path(out)
    devices = _devices(devices, config)
    splits = {name: table[table["split"] == name] for name in ("train", "dev")}
    _check_splits(splits)
    keras.utils.set_random_seed(config.seed)
    tokenizer = Tokenizer.from_captions(
        splits["train"]["caption"], config.vocabulary_size, config.min_count
    )
    source = _source(splits, encoder, config, features, allow_truncated, verbose)
    backup = Backup(out / BACKUP_FOLDER)
    done = backup.epochs_done
    train = caption_batches(
        splits["train"],
        tokenizer,
        source,
        batch_size=config.batch_size,
        group=config.group,
        seed=config.seed,
        max_length=config.max_length,
        mirror=config.mirror,
        first_epoch=done,
    )
    with devices.building():
        captioner = Captioner(
            config, tokenizer, encoder if config.encoder_trainable else None, dtype=config.precision
        )
        compile_captioner(captioner, len(train), devices)
        if start is not None:
            _take_weights(captioner, start)
    in_file = encoder if keep_encoder or config.encoder_trainable else None
    copy = copy_captioner(captioner, in_file, "float32")
    if verbose:
        print(
            f"{splits['train']['image_id'].nunique()} train pictures, {len(splits['train'])} "
            f"captions, {tokenizer.vocabulary_size} words; {captioner.count_params():,} weights"
        )
    past = read_log(out / LOG_FILE, done)
    monitor = f"dev_{config.monitor}"
    best = KeepBest(copy, out / MODEL_FILE, monitor, config.patience, past.get(monitor, ()))
    log = EpochLog(out / LOG_FILE, past)
    if done < config.epochs and not best.is_over:
        with picture_errors(), devices.training():
            callbacks = [
                # First: it must save the weights that are trained, not their averages.
                backup,
                *_dev_callbacks(config, splits["dev"], source, verbose),
                *([] if start else [CheckFirstLoss()]),
                keras.callbacks.TerminateOnNaN(),
                best,
                log,
                *_tensorboard(out),
            ]
            captioner.fit(
                pad_rows(train, devices.number),
                epochs=config.epochs,
                verbose=verbose,
                callbacks=callbacks,
                shuffle=False,
            )
        _check_finite(log.table, out)
    backup.delete()
    return log.table


def caption_pictures(captioner, source, image_ids, **search):
    """Caption the pictures of a source by search.

    Args:
        captioner: A `Captioner`.
        source: `FeatureCache`, or `PictureSource` for a captioner with an encoder.
        image_ids: Sequence of image ids.
        **search: Arguments of `CaptionSearch`, such as `beam_size`.

    Returns:
        List of `Caption`, one a picture.
    """
    with picture_errors():
        inputs = _search_inputs(source, image_ids)
        return captioner.read(caption_search(captioner, **search).predict(inputs, verbose=0))


def annotate_pictures(captioner, source, image_ids):
    """Collect the annotation vectors of the pictures of a source.

    Args:
        captioner: A `Captioner`.
        source: `FeatureCache`, or `PictureSource` for a captioner with an encoder.
        image_ids: Sequence of image ids.

    Returns:
        Array of shape `(len(image_ids), num_regions, feature_dim)`.
    """
    with picture_errors():
        batches = _search_inputs(source, image_ids)
        found = [ops.convert_to_numpy(captioner.annotate(batch)) for batch in batches]
    return np.concatenate(found)


def references_of(table):
    """Collect the captions of each picture.

    Args:
        table: Captions table.

    Returns:
        Dictionary from image id to the list of its captions, in the order of the table.
    """
    return table.groupby("image_id", sort=False)["caption"].agg(list).to_dict()


def _search_inputs(source, image_ids):
    """Minibatches of pictures for `CaptionSearch.predict`."""
    name = getattr(source, "input_name", "annotations")
    return picture_batches(image_ids, source, SEARCH_BATCH).map(lambda x: {name: x})


def _check_splits(splits):
    for name, split in splits.items():
        if split.empty:
            raise ValueError(
                f"Training needs a train and a dev split, and the {name} split is empty: use the "
                f"whole data set. Received: 0 {name} captions"
            )


def _take_weights(captioner, start):
    """Give a captioner the weights of another one, whose other options may differ."""

    def parts(model):
        return [model.decoder] if captioner.encoder is None else [model.decoder, model.encoder]

    if None in parts(start):
        raise ValueError(
            "A captioner whose encoder is trained must start from one with an encoder: load it "
            "with `encoder=True`. Received: start.encoder=None"
        )

    def described(model):
        shapes = [tuple(w.shape) for part in parts(model) for w in part.weights]
        return model.tokenizer.get_vocabulary(), shapes

    if described(start) != described(captioner):
        names = ("embedding_dim", "hidden_dim", "attention_dim", "feature_dim")
        sizes = [
            ", ".join(f"{name}={getattr(model.config, name)}" for name in names)
            + f" and {model.tokenizer.vocabulary_size} words"
            for model in (captioner, start)
        ]
        raise ValueError(
            "The captioner to start from must have the same words and sizes, and use the same "
            f"parts of the decoder: train with its options, on its data set. Expected {sizes[0]}. "
            f"Received: {sizes[1]}"
        )
    for mine, its in zip(parts(captioner), parts(start), strict=True):
        mine.set_weights(its.get_weights())


def _devices(number, config):
    if number > 1 and config.encoder_trainable:
        raise ValueError(
            "Several devices train the decoder alone: give the config `encoder_trainable=False`, "
            f"or train on one device. Received: {number} devices, encoder_trainable=True"
        )
    return Devices(number)


def _source(splits, encoder, config, features, allow_truncated, verbose):
    """Where the loaders read: pixels for an encoder that is trained, else annotation vectors."""
    if config.encoder_trainable:
        table = pd.concat(splits.values())
        return PictureSource(table, encoder.resize_images, allow_truncated=allow_truncated)
    options = {"allow_truncated": allow_truncated, "progress": verbose == 1}
    extract_features(splits["train"], encoder, features, mirror=config.mirror, **options)
    return extract_features(splits["dev"], encoder, features, **options)


def _dev_callbacks(config, dev, source, verbose):
    """Scores of the dev pictures and the sentence of one, by the averaged weights if there are."""
    references = references_of(dev)
    shown = dev.iloc[0]
    if config.encoder_trainable:
        picture = {"images": [load_image(shown["image"])]}
    else:
        picture = {"annotations": source.read(source.lookup([shown["image_id"]])).numpy()}
    return [
        *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if config.ema_momentum else []),
        DevScores(_search_inputs(source, list(references)), references),
        *([ShowCaption(picture, references[shown["image_id"]])] if verbose else []),
    ]


def _tensorboard(out):
    """TensorBoard's log, where TensorBoard is installed: newer TensorFlows come without it."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    return [keras.callbacks.TensorBoard(str(out / TENSORBOARD_FOLDER), write_graph=False)]


def _check_finite(log, out):
    if not math.isfinite(log["loss"].iloc[-1]):
        raise FloatingPointError(
            "Training was stopped because the loss is no longer finite; lower the learning rate or "
            f"the clip norm, or train in float32. The best weights before are in {out}. "
            f"Received: loss {log['loss'].iloc[-1]} in epoch {len(log)}"
        )
