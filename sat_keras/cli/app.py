"""`sat-keras app`: a page in the browser that captions photos and shows where the model looked."""

import argparse

from sat_keras.cli import options

SUMMARY = "Open a page in the browser: drop a photo, read the sentence, see where the model looked."
USAGE = ""
EXAMPLES = """
examples:
  sat-keras app
  sat-keras app --model outputs/flickr8k --port 7861
"""


def add_options(parser: options.Parser) -> None:
    """Adds the command's options."""
    group = parser.add_argument_group("options")
    options.add_model(group, positional=False)
    group.add_argument(
        "--port", type=int, metavar="N", help="port of the page (default: free, from 7860 on)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    from pathlib import Path

    from sat_keras.plots.app import launch_app
    from sat_keras.training.pretrained import load_pretrained

    captioner = load_pretrained(arguments.model, arguments.encoder_weights)
    launch_app({Path(arguments.model).name: captioner}, arguments.port)
