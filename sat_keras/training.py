"""Training: the optimizer, and what happens after every epoch."""

import math

import keras

from sat_keras.captioner import CaptionSearch
from sat_keras.evaluation import score_captions


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


def compile_captioner(captioner, steps_per_epoch):
    """Compile a captioner as its config says.

    XLA compiles on JAX, which has nothing else. On TensorFlow every caption length would compile
    anew, and on a CPU the plain graph is faster.

    Args:
        captioner: A `Captioner`.
        steps_per_epoch: Integer, minibatches an epoch.
    """
    captioner.compile(
        optimizer=make_optimizer(captioner.config, steps_per_epoch),
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
    """

    def __init__(self, images, references, **search):
        super().__init__()
        self.images = images
        self.references = references
        self.search_options = search
        self.search = None

    def on_epoch_end(self, epoch, logs=None):
        if self.search is None:
            self.search = CaptionSearch(self.model, **self.search_options)
        captions = self.model.read(self.search.predict(self.images, verbose=0))
        texts = [caption.text for caption in captions]
        candidates = dict(zip(self.references, texts, strict=True))
        scores = score_captions(candidates, self.references)["coco"]
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
