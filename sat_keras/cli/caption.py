"""`sat-keras caption`: describes photos in sentences and draws where the captioner looked."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sat_keras.cli import options
from sat_keras.cli.errors import printable, sentence
from sat_keras.cli.files import check_writable, free_path, note
from sat_keras.cli.inputs import dataset_of, load_splits, search_options
from sat_keras.config.fields import COUNT

SUMMARY = "Describe photos in a sentence each, and draw where the captioner looked."
USAGE = "PHOTO|FOLDER ..."
EXAMPLES = """
examples:
  sat-keras caption photo.jpg holiday/
  sat-keras caption photo.jpg -n 3 --out figures
"""


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "photos", nargs="*", type=options.path, metavar="PHOTO", help="picture file or folder"
    )
    group = parser.add_argument_group("options")
    options.add_model(group, positional=False)
    group.add_argument(
        "-n",
        "--num-results",
        type=options.number(int, COUNT),
        default=1,
        metavar="N",
        help="sentences for each photo, the best first, at most --beam-size (default: 1)",
    )
    group.add_argument(
        "--out",
        type=options.path,
        metavar="DIR",
        help="folder for figures of the attention; files in it stay (default: no figures)",
    )
    formats = group.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print JSON")
    formats.add_argument("--csv", action="store_true", help="print CSV: image, rank, caption")
    options.add_search(group)
    data = parser.add_argument_group("pictures of a data set")
    data.add_argument(
        "--split", choices=options.SPLITS, help="caption pictures of the model's data set"
    )
    options.add_dataset(data, required=False)
    options.add_data_dir(data)
    options.add_data(data, required=False)


def run(arguments: argparse.Namespace) -> int:
    """Captions photos as the arguments say.

    Returns:
        Integer exit code, 1 if some photos could not be captioned or drawn.
    """
    from sat_keras.training.pretrained import load_pretrained, pretrained_folder

    folder = pretrained_folder(arguments.model)
    if arguments.out:
        check_writable(arguments.out)
    photos = _photos(arguments, folder)
    captioner = load_pretrained(folder, arguments.encoder_weights)
    if arguments.out and not hasattr(captioner, "decoder"):
        raise ValueError(
            "--out draws attention, which this captioner has none of; leave it out. "
            f"Received: {arguments.model}, system {captioner.config.system}"
        )
    search = search_options(arguments, captioner.config)
    if arguments.num_results > search["beam_size"]:
        raise ValueError(
            f"-n must be at most the beam size, {search['beam_size']}; widen the beam with "
            f"--beam-size. Received: -n {arguments.num_results}"
        )
    rows, num_failed = [], 0
    for photo in photos:
        try:
            rows += _caption_one(captioner, photo, search, arguments)
        except (OSError, ValueError) as error:
            print(f"sat-keras: {sentence(error, arguments)}", file=sys.stderr)
            num_failed += 1
    if arguments.json:
        text = json.dumps(rows, indent=2, ensure_ascii=False)
        print("\n".join(map(printable, text.split("\n"))))
    elif arguments.csv:
        writer = csv.DictWriter(sys.stdout, ("image", "rank", "caption", "log_probability"))
        writer.writeheader()
        writer.writerows(rows)
    return 1 if num_failed else 0


def _photos(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Returns the paths of all photos, with folders replaced by the pictures in them."""
    from sat_keras.captioning.pictures import picture_files
    from sat_keras.training.pretrained import read_description

    photos: list[str] = []
    for photo in arguments.photos:
        if not Path(photo).is_dir():
            photos.append(photo)
            continue
        photos += map(str, picture_files(photo))
    if arguments.split:
        dataset = dataset_of(arguments, read_description(folder))
        table = load_splits(dataset, (arguments.split,), arguments.limit)
        photos += table["image"].unique().tolist()
    if not photos:
        raise ValueError("Expected a PHOTO, or --split for pictures of a data set. Received: none")
    return photos


def _caption_one(
    captioner: Any, photo: str, search: dict[str, Any], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Captions a photo, prints the sentences and then draws the best one."""
    from sat_keras.data.images import load_image

    picture = load_image(photo, arguments.allow_truncated)
    found = captioner.caption(picture, num_results=arguments.num_results, **search)
    is_text = not (arguments.json or arguments.csv)
    if is_text:
        _print_sentences(photo, [caption.sentence for caption in found])
    if arguments.out:
        path = free_path(arguments.out, Path(photo).stem)
        try:
            _draw(captioner, picture, found[0], path)
            if is_text:
                note(arguments, f"  attention: {path}")
        except OSError as error:
            raise OSError(f"The figure was not written: {sentence(error, arguments)}") from error
    return [
        {
            "image": photo,
            "rank": rank,
            "caption": caption.sentence,
            "log_probability": round(caption.log_probability, 4),
        }
        for rank, caption in enumerate(found, 1)
    ]


def _print_sentences(photo: str, sentences: Sequence[str]) -> None:
    if len(sentences) == 1:
        print(printable(f"{photo}: {sentences[0]}"), flush=True)
        return
    print(printable(f"{photo}:"))
    for rank, text in enumerate(sentences, 1):
        print(printable(f"  {rank}. {text}"), flush=True)


def _draw(captioner: Any, picture: Any, found: Any, path: Path) -> None:
    """Draws the attention on the photo itself, not on the square that the encoder saw."""
    from sat_keras.cnn.resize import PictureResize
    from sat_keras.plots import describe_attention, plot_attention, save_figure, seen_box

    resize = PictureResize(captioner.config.image_size, captioner.config.resize)
    seen = seen_box(resize, *picture.shape[:2])
    figure = plot_attention(
        picture, found.words, found.attention, found.gate, title=found.sentence, seen=seen
    )
    save_figure(figure, path, describe_attention(found.words, found.attention))
