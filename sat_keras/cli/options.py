"""The parser, the types of option values, and the options that several commands share."""

import argparse
import dataclasses
import difflib
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sat_keras import __version__
from sat_keras.config.config import Config
from sat_keras.config.fields import COUNT, Check
from sat_keras.config.model import ModelConfig
from sat_keras.config.search import SearchConfig
from sat_keras.config.training import TrainingConfig

PRETRAINED = "flickr8k-cider-vgg16"
# Preset of each data set.
DATASETS = {
    "scenes": "scenes",
    "flickr8k": "flickr8k",
    "flickr30k": "flickr8k",
    "coco2014": "paper_coco",
    "coco2017": "paper_coco",
}
PRESETS = ("scenes", "flickr8k", "paper_coco", "finetune", "self_critical", "tiny")
SPLITS = ("train", "dev", "test")
FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# Fields that the annotation vectors depend on.
FEATURE_FIELDS = (
    "encoder",
    "encoder_layer",
    "resize",
    "image_size",
    "mirror",
    "precision",
    "encoder_precision",
    "seed",
)
_HINTS = typing.get_type_hints(Config)
_PRESET_CONFIGS = {preset: getattr(Config, preset)() for preset in PRESETS}

# A parser or a group of its options.
Group = Any


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one sentence, with "did you mean" and the command's help.

    An option that takes a value can be given once: argparse by itself silently takes the last one.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(
            allow_abbrev=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )
        self.register("action", None, _StoreOnce)
        self.given: set[str] = set()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but unknown options are an error of the command that got them."""
        self.given.clear()
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            first = unknown[0].partition("=")[0]
            known = self._option_string_actions if first.startswith("-") else ()
            self.error(f"unrecognized argument {first}{did_you_mean(first, known)}")
        return namespace, unknown

    def error(self, message: str) -> typing.NoReturn:
        """Raises a `ValueError` that names the help of this command."""
        raise ValueError(f"{message.removeprefix('argument ')}; see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action,
                f"must be one of {', '.join(choices)}. Received: {value!r}"
                + did_you_mean(str(value), choices),
            )


class _StoreOnce(argparse.Action):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if option_string and self.dest in parser.given:
            parser.error(f"{option_string} must be given once. Received: it twice")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean ...?"` for the most similar of the known words, if one is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def number(kind: Callable[[str], Any], check: Check) -> Callable[[str], Any]:
    """Returns an argparse type that parses and checks a value.

    Args:
        kind: `int`, `float` or `str`.
        check: `Check` of the parsed value. If it accepts `None`, `none` stands for it.
    """

    def parse(text: str) -> Any:
        expected = check.expected.replace("None", "none")
        try:
            value = None if text.lower() == "none" and check.accepts(None) else kind(text)
        except ValueError:
            value = check  # which no check accepts
        if not check.accepts(value):
            raise argparse.ArgumentTypeError(f"must be {expected}. Received: {text!r}")
        return value

    return parse


def path(text: str) -> str:
    """Parses a path, which must not be empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"must be the path of a file or folder. Received: {text!r}"
        )
    return text


def flag(name: str) -> str:
    """Returns the option of an argument: `--beam-size` of `beam_size`."""
    return "--" + name.replace("_", "-")


# Options that several commands share


def add_general(parser: Parser) -> None:
    """Adds the options of every command: --quiet, --debug and --help."""
    group = parser.add_argument_group("general options")
    group.add_argument("--quiet", action="store_true", help="print results only, no progress")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    group.add_argument("-h", "--help", action="help", help="show this help and exit")


def dataset(text: str) -> str:
    """Parses the name of a data set, or the path of a folder with photos and captions."""
    if text in DATASETS:
        return text
    if os.path.isdir(text):
        folder = os.path.normpath(text)
        return os.path.join(".", folder) if folder in DATASETS else folder
    raise argparse.ArgumentTypeError(
        f"must be one of {', '.join(DATASETS)}, or a folder with photos and captions. "
        f"Received: {text!r}{did_you_mean(text, DATASETS)}"
    )


def add_dataset(parser: Group, required: bool) -> None:
    """Adds --dataset."""
    trained = "" if required else " (default: the model's)"
    parser.add_argument(
        "--dataset",
        type=dataset,
        metavar="DATASET",
        required=required,
        help=f"{', '.join(DATASETS)}, or a folder of your own with photos and captions{trained}",
    )


def add_data_dir(parser: Group) -> None:
    """Adds --data-dir."""
    parser.add_argument(
        "--data-dir",
        type=path,
        metavar="DIR",
        help="folder of the data set, or the one above it (default: data)",
    )


def add_boxes(parser: Group) -> None:
    """Adds the option of the boxes of objects.

    Args:
        parser: Parser or group to add it to.
    """
    parser.add_argument(
        "--boxes",
        nargs="+",
        type=path,
        metavar="PATH",
        help="boxes of objects: Flickr30k Entities' folder, or COCO's instances files (default: "
        "those of the scenes, and Entities' archive where it lies in the data folder)",
    )


def add_data(parser: Group, required: bool) -> None:
    """Adds the rarer options of a data set: splits, limit, encoder weights, truncated pictures.

    Args:
        parser: Parser or group to add them to.
        required: Boolean, whether the command needs a data set and has no model to ask.
    """
    parser.add_argument(
        "--splits",
        type=path,
        metavar="FILE",
        help="Karpathy's split file, or 'karpathy' to download it",
    )
    parser.add_argument(
        "--limit",
        type=number(int, COUNT),
        metavar="N",
        help="only the first N pictures of a split, for a quick try",
    )
    parser.add_argument(
        "--encoder-weights",
        type=path,
        metavar="WEIGHTS",
        help="imagenet (Keras downloads them), a file's path, or none for random weights "
        + ("(default: imagenet; none for scenes)" if required else "(default: as in training)"),
    )
    parser.add_argument(
        "--allow-truncated",
        action="store_true",
        help="read truncated JPEG files as far as they go instead of stopping at them",
    )


def add_preset(parser: Group) -> None:
    """Adds --preset."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="config to start from (default: the data set's; of a folder of your own flickr8k, or "
        "with --start finetune); sizes and parts of the network are those of --start",
    )


def add_features(parser: Group) -> None:
    """Adds --features."""
    parser.add_argument(
        "--features",
        type=path,
        metavar="DIR",
        help="folder of the cache of a frozen encoder's annotation vectors; missing ones are "
        "computed (default: outputs/features/DATASET in training, then the training's)",
    )


def add_model(parser: Group, positional: bool) -> None:
    """Adds MODEL, or --model with a default.

    Args:
        parser: Parser or group to add it to.
        positional: Boolean, whether it is a positional argument.
    """
    about = "folder of a training, or name of a pretrained captioner"
    if positional:
        parser.add_argument("model", type=path, metavar="MODEL", help=about)
    else:
        parser.add_argument(
            "--model",
            type=path,
            metavar="MODEL",
            default=PRETRAINED,
            help=f"{about} (default: {PRETRAINED})",
        )


def add_search(parser: Group) -> None:
    """Adds --beam-size, --length-penalty and --context, by default those of the model."""
    for name, kind in (("beam_size", int), ("length_penalty", float)):
        parser.add_argument(
            flag(name),
            type=number(kind, FIELDS[name].metadata["check"]),
            metavar="N" if kind is int else "X",
            help=f"{_description(name)} (default: as trained)",
        )
    parser.add_argument(
        "--context",
        choices=choices_of("context"),
        help=f"{_description('context')} (default: as trained)",
    )


def add_overwrite(parser: Group) -> None:
    """Adds --overwrite for files."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that exist, also those that sat-keras did not write",
    )


# Options of the config


def choices_of(name: str) -> tuple[str, ...]:
    """Returns the names that a field of the config can have, empty if it is no such field."""
    return FIELDS[name].metadata["check"].choices


def add_fields(parser: Group, names: Sequence[str]) -> None:
    """Adds options for fields of the config, with type, choices, help and defaults of each.

    Args:
        parser: Parser or group to add them to.
        names: Names of the fields.
    """
    for name in names:
        parser.add_argument(
            flag(name),
            dest=name,
            default=argparse.SUPPRESS,
            help=f"{_description(name)} (default: {_defaults(name)})",
            **_value_options(name),
        )
        if _is_flag_or_name(name):
            parser.add_argument(
                f"--no-{flag(name)[2:]}",
                dest=name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=f"the opposite of {flag(name)}",
            )


def add_config(parser: Parser, without: Sequence[str] = ()) -> None:
    """Adds a group of options for each part of the config.

    Args:
        parser: Parser to add them to.
        without: Names of the fields to leave out.
    """
    for part in (ModelConfig, TrainingConfig, SearchConfig):
        group = parser.add_argument_group((part.__doc__ or "").rstrip(".").lower())
        names = [field.name for field in dataclasses.fields(part)]
        add_fields(group, [name for name in names if name not in without])


def make_config(arguments: argparse.Namespace, start: Config | None = None) -> Config:
    """Returns the preset with the fields that the command line changes.

    Args:
        arguments: Parsed arguments.
        start: Optional config of the captioner that the training starts from, whose `full_stop` and
            `ModelConfig.STRUCTURE` are kept. Without --preset, a folder of one's own takes all of
            the model's fields from it, but for `min_count`, and the others from `finetune`.
    """
    preset = DATASETS.get(arguments.dataset, "finetune" if start else "flickr8k")
    config = getattr(Config, arguments.preset or preset)()
    if start:
        names = set(ModelConfig.STRUCTURE)
        if not arguments.preset and arguments.dataset not in DATASETS:
            names = {field.name for field in dataclasses.fields(ModelConfig)} - {"min_count"}
        config = config.replace(**{name: getattr(start, name) for name in names})
    changes = {name: getattr(arguments, name) for name in FIELDS if hasattr(arguments, name)}
    if "grid_shape" in changes:
        changes["grid_shape"] = tuple(changes["grid_shape"])
    if isinstance(changes.get("encoder_trainable"), str):
        changes = {"group": "picture", **changes}  # the CNN runs once for all captions of a picture
    if start:
        changes = {**changes, "full_stop": start.full_stop}  # its words are kept
    encoder = changes.get("encoder", config.encoder)
    if encoder != config.encoder:
        image_size = 64 if encoder == "scenes" else 224
        changes = {"encoder_layer": None, "image_size": image_size, **changes}
    return config.replace(**changes)


def _value_options(name: str) -> dict[str, Any]:
    """Returns how argparse reads a field of the config."""
    hint, check = _HINTS[name], FIELDS[name].metadata["check"]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if _is_flag_or_name(name):
        return {"nargs": "?", "const": True, "type": number(str, check), "metavar": "NAME"}
    if typing.get_origin(hint) is tuple:
        return {"type": number(int, COUNT), "nargs": 2, "metavar": ("ROWS", "COLUMNS")}
    if check.choices:
        return {"choices": check.choices}
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    metavar = {int: "N", float: "X", str: "NAME"}[kinds[0]]
    return {"type": number(kinds[0], check), "metavar": metavar}


def _is_flag_or_name(name: str) -> bool:
    """Returns whether a field of the config is True, False or a name."""
    return set(typing.get_args(_HINTS[name])) == {bool, str}


def _description(name: str) -> str:
    """Returns a field's description as the help shows it."""
    text = FIELDS[name].metadata["description"].rstrip(".")
    return text.replace("`", "").replace("%", "%%")


def _defaults(name: str) -> str:
    """Returns a field's value in each preset, once if all agree."""
    values = {preset: _shown(getattr(each, name)) for preset, each in _PRESET_CONFIGS.items()}
    if len(set(values.values())) == 1:
        return values[PRESETS[0]]
    return ", ".join(f"{preset} {value}" for preset, value in values.items())


def _shown(value: Any) -> str:
    """Returns a default as it is typed."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def make_parser(modules: Mapping[str, Any]) -> Parser:
    """Returns the parser of commands.

    Args:
        modules: Modules of `sat_keras.cli` by the command's name.
    """
    parser = Parser(
        prog="sat-keras",
        description="Show, Attend and Tell: image captioning with visual attention.",
    )
    parser.add_argument("--version", action="version", version=f"sat-keras {__version__}")
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in modules.items():
        command = commands.add_parser(
            name,
            help=module.SUMMARY[0].lower() + module.SUMMARY.rstrip(".")[1:],
            description=f"{module.SUMMARY}\n{module.EXAMPLES}".rstrip(),
            usage=f"%(prog)s {module.USAGE} [option ...]",
        )
        command.set_defaults(run=module.run)
        module.add_options(command)
        add_general(command)
        names = {action.dest for action in command._actions if action.option_strings}
        command.set_defaults(options=names)
    return parser
