"""`sat-keras table1`: trains and scores the systems that the paper's Table 1 compares."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sat_keras.cli import baseline, evaluate, options, train
from sat_keras.cli.files import check_target, note, write_results
from sat_keras.config.fields import COUNT

SUMMARY = "Train and score the systems of the paper's Table 1 on the same pictures."
USAGE = "--dataset NAME"
EXAMPLES = """
examples:
  sat-keras table1 --dataset scenes
  sat-keras table1 --dataset flickr8k --only init-inject --only nic
"""
# The commands that it runs.
STEPS = {"train": train, "baseline": baseline, "evaluate": evaluate}
REFERENCE = "soft"
ENCODER_FILE = "encoder.weights.h5"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        title: What the row is.
        kind: `"baseline"`, `"system"` or `"pretrained"`: how its captions come about.
        options: Options of its command that differ from the other rows'.
    """

    title: str
    kind: str
    options: tuple[str, ...] = ()


ROWS = {
    "templates": Row("templates (after Kulkarni et al., 2011; Yang et al., 2011)", "baseline"),
    "nearest": Row("nearest picture's caption", "baseline"),
    "consensus": Row("consensus of nearest pictures' captions", "baseline"),
    "embedding": Row("caption nearest in a visual-semantic embedding", "baseline"),
    "log-bilinear": Row("log-bilinear (Kiros et al., 2014)", "system"),
    "factored-log-bilinear": Row("factored log-bilinear (Kiros et al., 2014)", "system"),
    "multimodal-rnn": Row("BRNN: multimodal RNN (Karpathy & Li, 2015)", "system"),
    "visual-memory": Row("after Chen & Zitnick, 2015: visual memory", "system"),
    "maximum-entropy": Row(
        "MS Research: word detectors, maximum entropy (Fang et al., 2015)",
        "system",
        ("--group", "picture"),
    ),
    "reranked": Row("MS Research, re-ranked (Fang et al., 2015)", "baseline"),
    "nic": Row("Google NIC (Vinyals et al., 2015)", "system"),
    "init-inject": Row("init-inject (Tanti et al., 2018)", "system"),
    "soft": Row("soft attention", "pretrained"),
    "hard": Row("hard attention", "pretrained"),
}
# Rows that read the captioner of another one, maximum-entropy.
_OF_DETECTORS = ("templates", "reranked")
# The committed captioners, whose CNN and search all rows share, and how the others are trained.
PRETRAINED = {
    "scenes": {"soft": "scenes-soft", "hard": "scenes-hard"},
    "flickr8k": {"soft": "flickr8k-soft-vgg16", "hard": "flickr8k-hard-vgg16"},
}
TRAINING = {
    # The words and the frozen CNN of the committed captioner: all read its annotation vectors.
    "scenes": (
        *("--no-full-stop", "--no-encoder-trainable", "--no-mirror", "--batch-size", "320"),
        *("--learning-rate", "0.003", "--epochs", "8"),
    ),
    # The preset reads the features of the committed captioner from their cache at any precision.
    "flickr8k": ("--no-full-stop", "--epochs", "8"),
}
NOTE = (
    "Systems without attention read the mean annotation vector of the CNN that soft attention was "
    "trained with, or on; the CNN's last hidden layer (fc2), which they were published with, is "
    "not part of these features."
)


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    group = parser.add_argument_group("options")
    group.add_argument(
        "--dataset",
        choices=tuple(PRETRAINED),
        required=True,
        help="data set whose committed captioners are compared with",
    )
    group.add_argument(
        "--only",
        action="append",
        choices=tuple(ROWS),
        metavar="NAME",
        help=f"this row alone, beside soft, and those done before; may be repeated: "
        f"{', '.join(ROWS)} (default: all)",
    )
    group.add_argument(
        "--split", choices=options.SPLITS[1:], default="test", help="what to score (default: test)"
    )
    options.add_data_dir(group)
    options.add_features(group)
    options.add_data(group, required=True)
    group.add_argument(
        "--epochs",
        type=options.number(int, COUNT),
        metavar="N",
        help="epochs of every training (default: 8)",
    )
    group.add_argument(
        "--folder",
        type=options.path,
        metavar="DIR",
        help="folder of the trainings and of the rows' results (default: outputs/table1-DATASET)",
    )
    group.add_argument(
        "--out",
        type=options.path,
        metavar="FILE.json",
        help="file for the table (default: results/table1-DATASET.json)",
    )
    options.add_overwrite(group)


def run(arguments: argparse.Namespace) -> None:
    """Writes and prints the table as the arguments say."""
    from sat_keras.evaluation.statistics import read_results

    folder = Path(arguments.folder or f"outputs/table1-{arguments.dataset}")
    out = Path(arguments.out or f"results/table1-{arguments.dataset}.json")
    check_target("--out", out, arguments.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    commands = Commands(arguments, folder)
    asked = [name for name in ROWS if name in {REFERENCE, *(arguments.only or ROWS)}]
    for name in asked:
        path = results_path(folder, name, arguments.split)
        if not path.is_file():
            note(arguments, f"{ROWS[name].title} ...")
            commands.make(name, path)
    paths = {name: results_path(folder, name, arguments.split) for name in ROWS}
    found = {name: read_results(path) for name, path in paths.items() if path.is_file()}
    table = make_table(found)
    print(format_table(table["rows"]))
    print(f"p: paired bootstrap of CIDEr against {ROWS[REFERENCE].title}.")
    write_results(out, {**table, "command": arguments.command_line})


def results_path(folder: Path, name: str, split: str) -> Path:
    """Returns the path of a row's results, which are written when the row is done."""
    return folder / name / f"results-{split}.json"


class Commands:
    """Makes a row by the commands that a user would type: `baseline`, or `train` and `evaluate`.

    Args:
        arguments: Parsed arguments of `table1`.
        folder: Folder of the trainings.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder
        self._weights: str | None = arguments.encoder_weights

    def make(self, name: str, path: Path) -> None:
        """Runs the commands of a row.

        Args:
            name: Name of the row.
            path: File for its results.
        """
        row, arguments = ROWS[name], self.arguments
        data, training = self._data(), self._training()
        if name in _OF_DETECTORS:
            self._train("maximum-entropy")
        if row.kind == "baseline":
            flags = ["--no-mirror"] if arguments.dataset == "scenes" else []
            if name in _OF_DETECTORS:
                flags += ["--detectors", str(self.folder / "maximum-entropy")]
            command = ["baseline", name, *training, *flags, "--split", arguments.split]
            _run([*command, "--models", str(self.folder / "models"), "--out", path])
            return
        model = PRETRAINED[arguments.dataset].get(name)
        # The annotation vectors of all rows; a CNN that was trained with the decoder reads pixels.
        inputs = [*self._given("encoder_weights"), "--features", self._features()]
        if row.kind == "system":
            self._train(name)
            model, inputs = str(self.folder / name), []
        search = ["--beam-size", self._search("beam_size")]
        search += ["--length-penalty", self._search("length_penalty"), "--occlusion", "0"]
        if name == "maximum-entropy":  # the one with word detectors
            search += ["--pointing", *PRETRAINED[arguments.dataset].values()]
        _run(
            ["evaluate", model, *data, *inputs, "--split", arguments.split, *search, "--out", path]
        )

    def _train(self, name: str) -> None:
        """Trains a system, or resumes its training."""
        fixed = list(TRAINING[self.arguments.dataset])
        if self.arguments.epochs:
            fixed[fixed.index("--epochs") + 1] = str(self.arguments.epochs)
        command = ["train", "--system", name, *self._training(), *fixed, *ROWS[name].options]
        _run([*command, "--out", self.folder / name])

    def _data(self) -> list[str]:
        return [
            *("--dataset", self.arguments.dataset),
            *self._given("data_dir", "splits", "limit"),
        ]

    def _training(self) -> list[str]:
        return [*self._data(), *self._encoder(), "--features", self._features()]

    def _given(self, *names: str) -> list[str]:
        """Returns the options of these names that the command line gives."""
        values = {options.flag(name): getattr(self.arguments, name) for name in names}
        return [str(x) for pair in values.items() if pair[1] is not None for x in pair]

    def _features(self) -> str:
        if self.arguments.features:
            return self.arguments.features
        is_scenes = self.arguments.dataset == "scenes"
        return str(self.folder / "features" if is_scenes else "outputs/features/flickr8k")

    def _encoder(self) -> list[str]:
        """Returns the option that names the CNN's weights: those of the committed captioner."""
        if self._weights is None and self.arguments.dataset == "scenes":
            from sat_keras.data.files import replacing
            from sat_keras.training.pretrained import load_pretrained

            path = self.folder / "encoder" / ENCODER_FILE
            if not path.is_file():
                encoder = load_pretrained(PRETRAINED["scenes"][REFERENCE]).encoder
                with replacing(self.folder / "encoder") as partial:
                    partial.mkdir()
                    encoder.cnn.save_weights(partial / ENCODER_FILE)
            self._weights = str(path)
        return ["--encoder-weights", self._weights] if self._weights else []

    def _search(self, field: str) -> str:
        """Returns the value of the search that the committed captioner with soft attention has."""
        from sat_keras.training.pretrained import pretrained_folder, read_description

        model = PRETRAINED[self.arguments.dataset][REFERENCE]
        return str(getattr(read_description(pretrained_folder(model))["config"], field))


def _run(command: Sequence[Any]) -> None:
    """Runs another command of the program in this process."""
    words = [str(word) for word in command]
    arguments = options.make_parser(STEPS).parse_args([*words, "--quiet"])
    arguments.command_line = shlex.join(["sat-keras", *words])
    arguments.run(arguments)


def make_table(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the table's contents.

    Args:
        found: Results by the row's name, with those of `REFERENCE`, of the same pictures.

    Returns:
        Dictionary of JSON values: `dataset`, `split`, `pictures`, `note` and `rows`, a dictionary
        from the row's name to its title, scores and intervals in both protocols, parameters,
        seconds of training, commands, and the paired bootstrap against soft attention.
    """
    from sat_keras.evaluation.statistics import compare_results

    reference = found[REFERENCE]
    rows = {}
    for name, results in found.items():
        row = {
            "title": ROWS[name].title,
            **{key: results.get(key) for key in ("scores", "intervals", "parameters", "command")},
            "training_seconds": (results.get("training") or {}).get("seconds"),
            "caption_statistics": results["caption_statistics"],
            **{key: results[key] for key in ("scenes", "word_maps") if results.get(key)},
        }
        if name != REFERENCE:
            compared = {
                protocol: compare_results([reference], [results], protocol)
                for protocol in ("coco", "paper")
            }
            row["against_soft"] = {
                protocol: {score: _difference(x) for score, x in scores.items()}
                for protocol, scores in compared.items()
            }
        rows[name] = row
    same = ("dataset", "split", "pictures", "beam", "length_penalty", "hardware", "versions")
    return {**{key: reference.get(key) for key in same}, "note": NOTE, "rows": rows}


def _difference(found: Any) -> dict[str, float]:
    return {key: getattr(found, key) for key in ("difference", "low", "high", "p_value")}


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table as text.

    Args:
        rows: The `rows` of `make_table`.
    """
    import pandas as pd

    def number(digits: int) -> Callable[[float], str]:
        return lambda value: f"{value:,.{digits}f}"

    coco = [f"bleu{n}" for n in range(1, 5)] + ["meteor", "cider"]
    lines = {}
    for name, row in rows.items():
        scores, difference = row["scores"], row.get("against_soft", {}).get("coco", {})
        lines[name] = {
            **{key.replace("bleu", "B-"): scores["coco"].get(key) for key in coco},
            **{f"paper B-{n}": scores["paper"][f"bleu{n}"] for n in (1, 4)},
            "CIDEr - soft": difference.get("cider", {}).get("difference"),
            "p": difference.get("cider", {}).get("p_value"),
            "parameters": row["parameters"],
            "training s": row["training_seconds"],
        }
    table = pd.DataFrame.from_dict(lines, orient="index").astype(float).dropna(axis=1, how="all")
    digits = {"cider": 3, "CIDEr - soft": 3, "p": 4, "parameters": 0, "training s": 0}
    formats = {name: number(digits.get(name, 1)) for name in table}
    return table.to_string(formatters=formats, na_rep="")
