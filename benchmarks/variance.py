"""Variance and learning of hard attention's estimator by baseline, samples and mixing.

    python -m benchmarks.variance [--out results/hard-variance]

The problem: pictures of 9 regions. Three of them bear a mark each and a colour, the others are of
any colour without a mark. The caption is the colours of the three marks, in their order, so that
each word is at one region, and which one has to be learned from the reward of looking there.

Writes `FILE.json` and `FILE.png`: the variance of the gradient of one minibatch by a model that has
learned halfway, and the loss over a training from the start, for every setting the mean of a few
seeds. Takes about five minutes of a CPU; nothing in it is a matter of speed.
"""

import argparse
import itertools
import shlex
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from benchmarks.gradient_noise import gradient_samples
from benchmarks.measure import REPOSITORY, machine
from sat_keras.config.config import Config
from sat_keras.data.files import write_json
from sat_keras.data.tokenizer import END_ID, START_ID
from sat_keras.paper.captioner import Captioner

GRID, MARKS, COLOURS = (3, 3), 3, 4
FIRST_WORD = 4  # after those for padding, unknown words, start and end
CONFIG = Config.tiny().replace(
    grid_shape=GRID,
    feature_dim=MARKS + COLOURS,
    vocabulary_size=FIRST_WORD + COLOURS,
    hidden_dim=16,
    penalty_weight=0.0,
    attention="hard",
    context="sampled",  # the loss outside training is the bound as well
    score_weight=1.0,  # the bound's own gradient
    entropy_weight=0.0,
)
LEARNING_RATE = 0.01
BASELINES, SAMPLES, MIXING = ("none", "average"), (1, 5, 10), (0.0, 0.5)
SETTINGS = tuple(itertools.product(MIXING, BASELINES, SAMPLES))
_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's, as in sat_keras.plots.style
_MARKS = "os^"


def problem(pictures, seed=0):
    """Draws pictures with their captions.

    Args:
        pictures: Integer, their number.
        seed: Integer.

    Returns:
        Dictionary of `annotations`, `token_ids` and `targets`, as `gradient_samples` takes them.
    """
    generator = np.random.default_rng(seed)
    regions = GRID[0] * GRID[1]
    colours = generator.integers(COLOURS, size=(pictures, regions))
    places = np.argsort(generator.random((pictures, regions)), axis=1)[:, :MARKS]
    marks = np.zeros((pictures, regions, MARKS))
    marks[np.arange(pictures)[:, None], places, np.arange(MARKS)] = 1
    words = FIRST_WORD + np.take_along_axis(colours, places, axis=1)
    edge = np.ones((pictures, 1), int)
    return {
        "annotations": np.concatenate([marks, np.eye(COLOURS)[colours]], -1).astype("float32"),
        "token_ids": np.concatenate([START_ID * edge, words], 1)[:, None].astype("int32"),
        "targets": np.concatenate([words, END_ID * edge], 1)[:, None].astype("int32"),
    }


def make(mixing, baseline, samples, seed=0):
    """Returns a captioner for the problem."""
    keras.utils.set_random_seed(seed)
    return Captioner(
        CONFIG.replace(
            expected_probability=mixing, baseline=baseline, attention_samples=samples, seed=seed
        )
    )


def train(captioner, steps, every=None, evaluate=None, batch_size=64, seed=0):
    """Trains on new pictures in every step.

    Args:
        captioner: Compiled `Captioner`.
        steps: Integer, minibatches.
        every: Integer, minibatches between two evaluations, the first one before the training.
        evaluate: Function of the captioner.
        batch_size: Integer.
        seed: Integer, of the pictures.

    Returns:
        List of what `evaluate` returned.
    """
    x, y = split(problem(steps * batch_size, seed))
    found = []
    for step in range(steps):
        if every and step % every == 0:
            found.append(evaluate(captioner))
        rows = slice(step * batch_size, (step + 1) * batch_size)
        captioner.train_on_batch({name: part[rows] for name, part in x.items()}, y[rows])
    return [*found, evaluate(captioner)] if every else found


def split(pictures):
    """Splits a problem into a captioner's inputs and targets."""
    x = {name: pictures[name] for name in ("annotations", "token_ids")}
    return x, pictures["targets"]


def evaluator(pictures=512):
    """Returns a function of a captioner: `-log p(y | s)` of other pictures, nats a word."""
    copy = make(0.0, "none", 1)
    copy.compile()
    x, y = split(problem(pictures, seed=1_000))

    def evaluate(captioner):
        copy.decoder.set_weights(captioner.decoder.get_weights())
        copy.reset_metrics()
        return round(float(copy.test_on_batch(x, y, return_dict=True)["cross_entropy"]), 4)

    return evaluate


def gradient_variances(draws, steps):
    """Measures the total variance of one minibatch's gradient for every setting.

    Args:
        draws: Integer, gradients for each setting.
        steps: Integer, steps that the model was trained before.

    Returns:
        List of dictionaries: the setting, the `variance`, summed over all weights, and the
        `mean_square`, the squared length of the mean gradient, less what chance adds to it.
    """
    trained = make(0.0, "average", 5)
    trained.compile(keras.optimizers.Adam(LEARNING_RATE))
    train(trained, steps)
    pictures = problem(64, seed=100)
    found = []
    for setting in SETTINGS:
        captioner = make(*setting)
        captioner.copy_weights(trained)
        gradients = gradient_samples(captioner, **pictures, draws=draws, warmup=30)
        variance = gradients.var(axis=0, ddof=1).sum()
        mean_square = (gradients.mean(axis=0) ** 2).sum() - variance / draws
        found.append(
            named(setting) | {"variance": float(variance), "mean_square": float(mean_square)}
        )
    return found


def learning_curves(steps, every, seeds):
    """Trains a model with every setting.

    Returns:
        List of dictionaries: the setting and `losses`, of shape `(seeds, steps // every + 1)`.
    """
    evaluate, found = evaluator(), []
    for setting in SETTINGS:
        captioner = make(*setting)
        captioner.compile(keras.optimizers.Adam(LEARNING_RATE))
        captioner.optimizer.build(captioner.trainable_variables)
        fresh = [ops.convert_to_numpy(variable) for variable in captioner.optimizer.variables]
        losses = []
        for seed in range(seeds):  # without compiling anew
            captioner.set_weights(make(*setting, seed).get_weights())
            for variable, value in zip(captioner.optimizer.variables, fresh, strict=True):
                variable.assign(value)
            losses.append(train(captioner, steps, every, evaluate, seed=seed))
        found.append(named(setting) | {"losses": losses})
    return found


def named(setting):
    """Names the parts of a setting."""
    return dict(zip(("mixing", "baseline", "samples"), setting, strict=True))


def draw_figure(results):
    """Draws variance against samples, and the curves without and with mixing.

    Args:
        results: What `measure` returns.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    panels[1].sharey(panels[2])
    _draw_variances(panels[0], results["variances"])
    for panel, mixing in zip(panels[1:], MIXING, strict=True):
        curves = [curve for curve in results["curves"] if curve["mixing"] == mixing]
        _draw_curves(panel, curves, results["every"])
        panel.set_title(_mixing(mixing).capitalize())
    panels[1].set_ylabel("−log p(y | s), nats a word")
    panels[1].legend(fontsize=8, frameon=False)
    return figure


def _draw_variances(panel, variances):
    for (mixing, baseline), colour in zip(
        itertools.product(MIXING, BASELINES),
        ("#0072B2", "#D55E00", "#56B4E9", "#E69F00"),
        strict=True,
    ):
        rows = [v for v in variances if (v["mixing"], v["baseline"]) == (mixing, baseline)]
        panel.plot(
            [row["samples"] for row in rows],
            [row["variance"] for row in rows],
            color=colour,
            marker="os"[baseline == "average"],
            linestyle=["-", "--"][mixing > 0],
            label=f"{_baseline(baseline)}, {_mixing(mixing)}",
        )
    panel.set(
        xscale="log",
        yscale="log",
        xticks=SAMPLES,
        xticklabels=SAMPLES,
        xlabel="samples a caption, N",
    )
    panel.minorticks_off()
    panel.set_ylim(top=8 * panel.get_ylim()[1])  # room for the legend
    panel.set_title("Variance of the gradient, all weights")
    panel.legend(fontsize=8, frameon=False)


def _draw_curves(panel, curves, every):
    for curve in curves:
        losses = np.array(curve["losses"])
        panel.plot(
            every * np.arange(losses.shape[1]),
            losses.mean(axis=0),
            color=_COLOURS[SAMPLES.index(curve["samples"])],
            marker=_MARKS[SAMPLES.index(curve["samples"])],
            markersize=4,
            markevery=2,
            linestyle=["--", "-"][curve["baseline"] == "average"],
            label=f"N = {curve['samples']}, {_baseline(curve['baseline'])}",
        )
    panel.set(xlabel="minibatches", ylim=(0, None))


def _baseline(name):
    return "with baseline" if name == "average" else "no baseline"


def _mixing(probability):
    return f"mixing {probability:g}" if probability else "no mixing"


def measure(draws=200, halfway=150, steps=400, every=20, seeds=2):
    """Runs all measurements.

    Args:
        draws, halfway: As `draws` and `steps` of `gradient_variances`.
        steps, every, seeds: As of `learning_curves`.

    Returns:
        Dictionary that JSON knows.
    """
    return {
        "draws": draws,
        "halfway": halfway,
        "every": every,
        "variances": gradient_variances(draws, halfway),
        "curves": learning_curves(steps, every, seeds),
        "config": CONFIG.to_dict(),
    }


def main(arguments=None):
    """Runs the benchmark and writes the numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", metavar="FILE", default=str(REPOSITORY / "results" / "hard-variance")
    )
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "-m", "benchmarks.variance"])
    results = {"command": command, **measure(), "machine": machine()}
    write_json(f"{options.out}.json", results)
    figure = draw_figure(results)
    figure.savefig(Path(f"{options.out}.png"), dpi=100)
    plt.close(figure)
    for row in results["variances"]:
        print("mixing {mixing}, baseline {baseline}, N = {samples}: {variance:.4g}".format(**row))


if __name__ == "__main__":
    main()
