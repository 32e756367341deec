"""The training: data, model, callbacks and `fit`, and how they are put together."""

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from sat_keras.backend.devices import Devices
from sat_keras.baselines.systems import system_of
from sat_keras.captioning.model import CaptionModel
from sat_keras.config.config import Config
from sat_keras.data.extraction import extract_features
from sat_keras.data.images import load_image, picture_errors
from sat_keras.data.loaders import (
    PictureSource,
    caption_batches,
    count_minibatches,
    minibatch_pictures,
    pad_rows,
)
from sat_keras.data.tokenizer import Tokenizer
from sat_keras.training.callbacks import CheckFiniteLoss, CheckFirstLoss, DevScores, ShowCaption
from sat_keras.training.captioning import (
    SEARCH_BATCH,
    annotate_pictures,
    caption_pictures,
    references_of,
    search_inputs,
)
from sat_keras.training.checkpoint import Checkpoint, finish
from sat_keras.training.optimizer import compile_captioner
from sat_keras.training.precision import (
    CANDIDATES,
    choose_precision,
    random_pictures,
    settle_precision,
)
from sat_keras.training.pretrained import copy_captioner, copy_encoder
from sat_keras.training.self_critical import make_self_critical
from sat_keras.training.start import make_tokenizer, take_weights
from sat_keras.training.state import locked, read_state

__all__ = [
    "SEARCH_BATCH",
    "ShowCaption",
    "annotate_pictures",
    "caption_pictures",
    "compile_captioner",
    "references_of",
    "train_captioner",
]

TENSORBOARD_FOLDER = "tensorboard"
# Train pictures, evenly spaced, that a model is adapted to.
_ADAPTED_TO = 2000


def train_captioner(
    config: Config,
    table: pd.DataFrame,
    encoder: Any,
    out: str | os.PathLike,
    features: str | os.PathLike = "outputs/features",
    keep_encoder: bool = False,
    allow_truncated: bool = False,
    start: CaptionModel | None = None,
    vocabulary: str = "captions",
    devices: int = 1,
    verbose: int = 2,
    boxes: Sequence[Sequence[tuple]] | None = None,
) -> pd.DataFrame:
    """Trains a captioner on a data set, or resumes the training that lies in the folder `out`.

    The tokenizer learns its words from the train captions. A frozen encoder's annotation vectors
    are computed once, into the folder `features`, and so is the output of the frozen layers of an
    encoder that is trained in part; one that is trained as a whole reads pixels. After
    every epoch the dev pictures are captioned by search and scored, and the best weights so far
    (their moving averages, with `config.ema_momentum`) are saved as `out/model.keras`, in float32.
    Ctrl-C and SIGTERM save a checkpoint after the current step. A call that is killed loses at most
    the last ten minutes. The next call resumes at the checkpoint, with the same numbers as an
    uninterrupted training.

    Args:
        config: A `Config` with the encoder's grid and feature size. Its `system` is the model. With
            the precision `"auto"`, float32 and bfloat16 are timed first, see
            `sat_keras.training.precision`.
        table: Captions table with a train and a dev split, see `sat_keras.datasets`.
        encoder: `ImageEncoder`. Layers that are trained run in the precision of the training: if
            that is not the encoder's, a copy of it is trained.
        out: Folder for `model.keras`, `log.csv`, `state.json`, the folder `tensorboard` and, until
            the training is finished, the folder `backup`. Of a finished training the log is
            returned.
        features: Folder of the feature cache. Not used if all of the encoder is trained.
        keep_encoder: Boolean, whether frozen layers are saved in the model's file as well. Layers
            that are trained always are.
        allow_truncated: Boolean, whether truncated JPEG files are read as far as they go.
        start: `Captioner` of the same sizes whose weights are the initial ones, such as one with
            soft attention for hard attention, or `None` for random ones. The encoder's are taken
            only if both train it, from the same layer on.
        vocabulary: `"captions"` for the words of the train captions, which must be those of
            `start`; `"extend"` or `"keep"` for the words of `start`, with or without new ones.
        devices: Integer, number of devices that share every batch, see `sat_keras.backend.devices`.
        verbose: 0 for no output, 1 for progress bars, 2 for a line per epoch.
        boxes: For each train caption the boxes of its words, see `caption_batches`. Required with
            `config.grounding_weight`.

    Returns:
        DataFrame with a row per epoch: `epoch` from 0, `loss`, `cross_entropy` in nats a word,
        `penalty`, `dev_bleu4` in percent, `dev_cider` and `seconds`.

    Raises:
        ValueError: If a split is empty, a picture cannot be read, `start` has other words or sizes,
            there are fewer devices, several are to train an encoder, or another process trains in
            `out`.
        FloatingPointError: If the loss or a weight is not finite.
        OSError: If `out` is not writable.

    Example:

    >>> table = sat_keras.load_dataset("scenes")
    >>> encoder = make_encoder(Config.scenes(), weights=None)
    >>> log = train_captioner(Config.scenes(), table, encoder, "outputs/scenes")

    Reference:
        Notebook `04_training`.
    """
    out = Path(out)
    placement = _devices(devices, config)
    splits = {name: table[table["split"] == name] for name in ("train", "dev")}
    _check_splits(splits)
    _check_boxes(config, boxes)
    with locked(out):
        state = read_state(out)
        if state.finished:
            finish(state, out)
            return state.table
        state.write(out)  # raises now if the folder is not writable
        tokenizer = make_tokenizer(config, splits["train"]["caption"], start, vocabulary)
        # The words of `start` are kept, its full stop included, whatever was asked for.
        config = config.replace(full_stop=tokenizer.full_stop)
        options: dict[str, Any] = {
            name: getattr(config, name) for name in ("batch_size", "group", "seed", "max_length")
        }
        load: Callable[..., Any] = functools.partial(
            caption_batches,
            splits["train"],
            tokenizer,
            mirror=config.mirror,
            boxes=boxes,
            grid_shape=config.grid_shape,
            **options,
        )

        def batches(first_step: int = 0) -> Any:
            found = load(source, first_epoch=state.epochs, first_step=first_step)
            return pad_rows(found, placement.number)

        def pictures(epoch: int, step: int) -> list[str]:
            return minibatch_pictures(splits["train"], tokenizer, epoch, step, **options)

        steps = count_minibatches(splits["train"], tokenizer, **options)
        build = functools.partial(_build, splits["train"], tokenizer, start, steps, placement)
        measure = functools.partial(_measure, config, encoder, build, load, steps, placement)
        config = settle_precision(config, state, out, measure, verbose)
        trained = _in_precision(encoder, config)
        # What is drawn from here on does not depend on what was measured.
        keras.utils.set_random_seed(config.seed)
        captioner = build(config, trained)
        in_file = encoder if keep_encoder or config.encoder_trainable is True else None
        copy = copy_captioner(captioner, in_file, "float32")
        if verbose:
            print(
                f"{splits['train']['image_id'].nunique()} train pictures, {len(splits['train'])} "
                f"captions, {tokenizer.vocabulary_size} words; {captioner.count_params():,} "
                f"weights, {config.precision}"
            )
        finite = CheckFiniteLoss(state.step, pictures)
        checkpoint = Checkpoint(out, state, copy, f"dev_{config.monitor}", config.patience, finite)
        with placement.training():
            checkpoint.restore(captioner)
        # After the checks of the folder: the annotation vectors may take hours.
        source = _source(splits, encoder, config, features, allow_truncated, verbose)
        if state.epochs < config.epochs and not checkpoint.is_over:
            if not (state.epochs or state.step):  # else the checkpoint has it
                captioner.adapt(_adapted_to(splits["train"], source))
            callbacks = [
                finite,
                *([] if start else [CheckFirstLoss()]),
                *_dev_callbacks(captioner, splits["dev"], source, checkpoint, verbose),
                checkpoint,
                *_tensorboard(out),
            ]
            _fit(captioner, batches, steps, placement, checkpoint, callbacks, verbose)
        finish(state, out)
        return state.table


def _in_precision(encoder: Any, config: Config) -> Any:
    """Returns the encoder, in the precision of the training if layers of it are trained."""
    if not config.encoder_trainable or encoder.dtype_policy.name == config.precision:
        return encoder
    return copy_encoder(encoder, config.precision)


def _measure(
    config: Config,
    encoder: Any,
    build: Callable[[Config, Any], CaptionModel],
    load: Callable[..., Any],
    steps: int,
    devices: Devices,
) -> tuple[str, str]:
    """Returns the precision to train in and why, by training copies on random pictures.

    Their minibatch is the middle one of those sorted by length.
    """
    batches = load(random_pictures(config, encoder), shuffle=False, first_step=steps // 2)
    batch = next(iter(pad_rows(batches, devices.number)))
    batch = keras.tree.map_structure(lambda tensor: tensor.numpy(), batch)

    def train_step(precision: str) -> Callable[[], Any]:
        copy = copy_encoder(encoder, precision) if config.encoder_trainable else encoder
        captioner = build(config.with_precision(precision), copy)
        return lambda: captioner.train_on_batch(*batch)

    with devices.training():
        return choose_precision({name: train_step(name) for name in CANDIDATES})


def _build(
    train: pd.DataFrame,
    tokenizer: Tokenizer,
    start: Any,
    steps: int,
    devices: Devices,
    config: Config,
    encoder: Any,
) -> CaptionModel:
    """Returns the compiled captioner with its initial weights."""
    with devices.building():
        captioner = system_of(config)(
            config,
            tokenizer,
            encoder if config.encoder_trainable is True else None,
            head=encoder.head if config.split_layer else None,
            dtype=config.precision,
        )
        compile_captioner(captioner, steps, devices)
        if start is not None:
            take_weights(captioner, start)
        captioner.optimizer.build(captioner.trainable_variables)
    if config.objective == "cider":
        captioner.self_critical = make_self_critical(config, tokenizer, train, start)
    return captioner


def _fit(
    captioner: CaptionModel,
    batches: Callable[[int], Any],
    steps: int,
    devices: Devices,
    checkpoint: Checkpoint,
    callbacks: list[Any],
    verbose: int,
) -> None:
    """Trains the epochs that are left. A loss that is not finite is noted in the state file."""
    state, epochs = checkpoint.state, captioner.config.epochs

    def fit(train: Any, until: int) -> None:
        captioner.fit(
            train,
            initial_epoch=state.epochs,
            epochs=until,
            verbose=verbose,
            callbacks=callbacks,
            shuffle=False,
        )

    try:
        with picture_errors(), devices.training(), checkpoint.stop.waiting():
            if state.step == steps:
                _end_epoch(captioner, state.epochs, callbacks)
            elif state.step:
                fit(batches(state.step), state.epochs + 1)
                # The end of `fit` has replaced the weights by their moving averages.
                checkpoint.restore(captioner)
            if state.epochs < epochs and not checkpoint.is_over:
                fit(batches(0), epochs)
    except FloatingPointError:
        state.diverged = True
        state.write(checkpoint.folder)
        raise
    state.diverged = False


def _end_epoch(captioner: CaptionModel, epoch: int, callbacks: list[Any]) -> None:
    """Scores and saves an epoch of which an earlier run trained all steps, as `fit` does."""
    every = keras.callbacks.CallbackList(callbacks, model=captioner)
    every.on_train_begin()
    every.on_epoch_begin(epoch)
    every.on_epoch_end(epoch, captioner.get_metrics_result())
    every.on_train_end()


def _check_splits(splits: dict[str, pd.DataFrame]) -> None:
    for name, split in splits.items():
        if split.empty:
            raise ValueError(
                f"Training needs a train and a dev split, and the {name} split is empty: use the "
                f"whole data set. Received: 0 {name} captions"
            )


def _check_boxes(config: Config, boxes: Any) -> None:
    if config.grounding_weight and boxes is None:
        raise ValueError(
            "Supervised attention needs the `boxes` of the train captions' words, see "
            "`sat_keras.analysis.caption_boxes`; or set `grounding_weight=0`. "
            f"Received: boxes=None, grounding_weight={config.grounding_weight}"
        )


def _devices(number: int, config: Config) -> Devices:
    if number > 1 and config.encoder_trainable:
        raise ValueError(
            "Several devices train the decoder alone: give the config `encoder_trainable=False`, "
            f"or train on one device. Received: {number} devices, "
            f"encoder_trainable={config.encoder_trainable!r}"
        )
    if number > 1 and config.objective != "likelihood":
        raise ValueError(
            "Several devices train by likelihood alone: train on one device. "
            f"Received: {number} devices, objective={config.objective!r}"
        )
    return Devices(number)


def _source(
    splits: dict[str, pd.DataFrame],
    encoder: Any,
    config: Config,
    features: str | os.PathLike,
    allow_truncated: bool,
    verbose: int,
) -> Any:
    """Returns pixels, the cached output of the frozen layers, or annotation vectors."""
    if config.encoder_trainable is True:
        table = pd.concat(splits.values())
        return PictureSource(
            table,
            encoder.resize_images,
            allow_truncated=allow_truncated,
            region_mask=encoder.region_mask,
        )
    options: dict[str, Any] = {"allow_truncated": allow_truncated, "progress": verbose > 0}
    if config.split_layer:
        encoder, options["input_name"] = encoder.make_stem(), "features"
    extract_features(splits["train"], encoder, features, mirror=config.mirror, **options)
    return extract_features(splits["dev"], encoder, features, **options)


def _adapted_to(train: pd.DataFrame, source: Any) -> Any:
    """Returns the inputs of the train pictures that a model is adapted to."""
    image_ids = train["image_id"].unique()
    return search_inputs(source, image_ids[:: -(-len(image_ids) // _ADAPTED_TO)])


def _dev_callbacks(
    captioner: CaptionModel, dev: pd.DataFrame, source: Any, checkpoint: Checkpoint, verbose: int
) -> list[Any]:
    """Returns the callbacks that score the dev pictures and save the best model.

    With `config.ema_momentum` they see the moving averages. Keras would swap them back at the start
    of the next epoch, which rounds; the checkpoint must save the weights after that.
    """
    references = references_of(dev)
    shown = dev.iloc[0]
    if captioner.config.encoder_trainable is True:
        picture = {"images": [load_image(shown["image"])]}
    else:
        picture = {source.input_name: source.read(source.lookup([shown["image_id"]])).numpy()}
    scoring = [
        DevScores(search_inputs(source, list(references), repeat=True), references),
        *([ShowCaption(picture, references[shown["image_id"]])] if verbose else []),
        keras.callbacks.LambdaCallback(on_epoch_end=checkpoint.save_best),
    ]
    if not captioner.config.ema_momentum:
        return scoring
    averages = keras.callbacks.SwapEMAWeights()
    averages.set_model(captioner)
    return [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: averages.on_test_begin()),
        *scoring,
        keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: averages.on_test_end()),
    ]


def _tensorboard(out: Path) -> list[Any]:
    """Returns the callback of TensorBoard where it is installed: newer TensorFlows lack it."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    return [keras.callbacks.TensorBoard(str(out / TENSORBOARD_FOLDER), write_graph=False)]
