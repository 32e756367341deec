"""`sat-keras app`: a page in the browser that captions photos and shows where the model looked."""

import argparse

from sat_keras.cli import options
from sat_keras.config.fields import COUNT

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
        "--encoder-weights",
        type=options.path,
        metavar="FILE",
        help="weights file of the CNN (default: as in training)",
    )
    group.add_argument(
        "--port",
        type=options.number(int, COUNT),
        metavar="N",
        help="port of the page (default: a free one, from 7860 on)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C.

    One of the captioners that come with the package brings the others, so that soft and hard
    attention can be compared.
    """
    from sat_keras.plots.app import launch_app
    from sat_keras.training.pretrained import load_pretrained, pretrained_names

    names, others = [arguments.model], pretrained_names()
    if arguments.model in others:
        family = arguments.model.partition("-")[0]  # of one data set
        names += [x for x in others if x.startswith(f"{family}-") and x != arguments.model]
    captioners = {str(x): load_pretrained(x, arguments.encoder_weights) for x in names}
    launch_app(captioners, arguments.port)
