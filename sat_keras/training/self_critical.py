"""Self-critical training: from the likelihood of reference captions to CIDEr-D itself."""

from typing import Any

import keras
import pandas as pd
from keras import ops

from sat_keras.config.config import Config
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID, Tokenizer
from sat_keras.paper.reinforce import Reinforce
from sat_keras.search.sampling import sample_search
from sat_keras.training.cider_reward import DocumentFrequencies, cider_rewards


@keras.saving.register_keras_serializable("sat_keras")
class SelfCritical(keras.Layer):  # a layer, so that its generator belongs to the model
    """Replaces the captions of a minibatch by sampled ones, weighted by what they gain.

    For each picture, `N` captions are drawn from the model, word by word. With the reward `R_i`,
    CIDEr-D of caption `i` against the picture's references, the expected reward has the gradient

    1. `A_i = R_i - mean_{j != i} R_j`, the advantage over the other samples
    2. `d E[R] = E[mean_i A_i d log p(y_i)]`

    so that the loss is the cross-entropy of the sampled captions, times `A_i`. The end token is
    scored as a word: a caption that breaks off loses the n-grams that end in it.

    With `cross_entropy_weight` the references stay in the minibatch, at this weight. With
    supervised attention they stay as well, since only their words have boxes.

    Words are drawn without dropout. The gradient is exact with `dropout=0`, `embedding_dropout=0`
    and `annotation_dropout=0` in the config. With dropout it is biased, since it is that of
    another distribution than the one drawn from, and a small data set generalises better.

    Args:
        frequencies: `DocumentFrequencies` of the train captions.
        samples: Integer `N`, at least 2.
        max_length: Integer, most words of a sampled caption.
        cross_entropy_weight: Float.
        seed: Integer.
        **kwargs: Arguments of `keras.Layer`.

    Raises:
        ValueError: If `samples` is below 2.

    Reference:
        [Rennie et al., 2017](https://arxiv.org/abs/1612.00563); the mean of the other samples as a
        baseline: [Luo, 2020](https://arxiv.org/abs/2003.09971). Notebook `10_self_critical`.
    """

    def __init__(
        self,
        frequencies: DocumentFrequencies,
        samples: int = 5,
        max_length: int = 20,
        cross_entropy_weight: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if samples < 2:
            raise ValueError(
                "The baseline of a sample is the mean of the others: draw 2 or more "
                f"(`caption_samples`). Received: samples={samples}"
            )
        self.frequencies = frequencies
        self.samples = samples
        self.max_length = max_length
        self.cross_entropy_weight = cross_entropy_weight
        self.seeds = keras.random.SeedGenerator(seed)
        self.reinforce = Reinforce(reward="caption", baseline="samples", samples=samples)
        self.reward_tracker = keras.metrics.Mean("reward")
        self.built = True

    def minibatch(self, model: Any, data: Any) -> Any:
        """Returns a minibatch of sampled captions.

        Args:
            model: The `CaptionModel` in training.
            data: Minibatch `(x, y, sample_weight)` of `caption_batches` with `group="picture"`.

        Returns:
            Minibatch of the same structure, whose rows hold the samples and, with
            `cross_entropy_weight` or supervised attention, the references. `x["advantage"]`, of
            shape `(batch_size, captions)`, multiplies the cross-entropy of each.
        """
        x, y, sample_weight = data
        references = ops.where(ops.cast(sample_weight, "bool"), ops.cast(y, "int32"), PAD_ID)
        token_ids, weight = self.sample(model, x)
        rewards = cider_rewards(token_ids, references, self.frequencies)
        self.reward_tracker.update_state(ops.mean(rewards))
        # The reward of a caption as that of its steps, all of it in the first one.
        steps = ops.pad(rewards[..., None], [(0, 0), (0, 0), (0, self.max_length)])
        advantage = self.reinforce.advantage(steps, weight)[..., 0]
        if self.cross_entropy_weight or "in_boxes" in x:
            kept = self.cross_entropy_weight * ops.ones_like(references[..., 0], "float32")
            advantage = ops.concatenate([advantage, kept], axis=1)
            token_ids = _stack(token_ids, references)
            is_written = ops.logical_and(references != PAD_ID, references != UNK_ID)
            weight = _stack(weight, ops.cast(is_written, "float32"))
        if "in_boxes" in x:  # none for the words of the samples
            before, after = [self.samples, 0], [0, token_ids.shape[-1] - ops.shape(references)[-1]]
            x = {**x, "in_boxes": ops.pad(x["in_boxes"], [(0, 0), before, after, (0, 0)])}
        starts = ops.full_like(token_ids[..., :1], START_ID)
        inputs = ops.concatenate([starts, token_ids[..., :-1]], axis=-1)
        inputs = ops.where(token_ids == PAD_ID, PAD_ID, inputs)
        return {**x, "token_ids": inputs, "advantage": advantage}, token_ids, weight

    def sample(self, model: Any, x: Any) -> tuple[Any, Any]:
        """Draws captions of a minibatch's pictures.

        Args:
            model: The `CaptionModel`.
            x: Dictionary of its inputs.

        Returns:
            Tuple of int32 token ids of shape `(batch_size, samples, max_length + 1)`, padded, and
            their weights: 1 at words that were drawn, 0 at padding and at an end that was forced.
        """
        annotations = model.annotate(x)
        steps = self.max_length + 1
        step, states = model.step_function(
            annotations, steps=steps, rows=self.samples, mask=x.get("mask")
        )
        found = sample_search(
            step,
            states,
            start_id=START_ID,
            end_id=END_ID,
            max_length=steps,
            num_samples=self.samples,
            seed=self.seeds,
            batch_size=ops.shape(annotations)[0],
            forbidden_ids=(UNK_ID,),
        )
        token_ids = ops.cast(found.token_ids, "int32")
        is_drawn = ops.logical_and(token_ids != PAD_ID, ops.arange(steps) < self.max_length)
        return token_ids, ops.cast(is_drawn, "float32")


def make_self_critical(
    config: Config, tokenizer: Tokenizer, train: pd.DataFrame, start: Any
) -> SelfCritical:
    """Returns the `SelfCritical` of a training.

    Args:
        config: A `Config` with `objective="cider"`.
        tokenizer: `Tokenizer` of the training.
        train: Captions table of the train split.
        start: Captioner to start from.

    Raises:
        ValueError: If there is none, or the config does not fit.
    """
    wanted = {"group": "picture", "attention": "soft", "system": "show-attend-tell"}
    other = {k: getattr(config, k) for k, v in wanted.items() if getattr(config, k) != v}
    if start is None or other:
        raise ValueError(
            "The objective 'cider' trains a soft captioner on, in batches of whole pictures: give "
            f"one to `start` from, and {wanted}. Received: start={start}, {other}"
        )
    ids = tokenizer(train["caption"].tolist()).to_list()
    captions = pd.Series([row[1 : config.max_length + 2] for row in ids])
    pictures = captions.groupby(train["image_id"].to_numpy(), sort=False).agg(list)
    return SelfCritical(
        DocumentFrequencies(pictures),
        samples=config.caption_samples,
        max_length=config.max_length,
        cross_entropy_weight=config.cross_entropy_weight,
        seed=config.seed,
        name="self_critical",
    )


def _stack(first: Any, second: Any) -> Any:
    """Joins captions of different numbers of steps along the axis of captions."""
    missing = first.shape[-1] - ops.shape(second)[-1]
    second = ops.pad(second, [(0, 0), (0, 0), (0, missing)])
    return ops.concatenate([first, second], axis=1)
