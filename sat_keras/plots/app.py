"""The app: drop a photo, read the sentence, point at a word to see where the model looked."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from sat_keras.captioning.model import CaptionModel

TITLE = "Show, Attend and Tell"
# What the committed captioners were trained on.
WORLD = (
    "The model has read five sentences about each of 6,000 photos from Flickr: people, dogs, "
    "sports and streets. It describes everything in those words."
)
# Below this mean log-probability of a word, in nats, the sentence is marked as a guess: the
# geometric mean of the probabilities that the model gives its own words is below 1 / e.
LOW_CONFIDENCE = -1.0
CONTEXTS = [
    ("the expected context, as soft attention", "expected"),
    ("the likeliest region", "argmax"),
    ("a region drawn anew", "sampled"),
]
LONGEST = 40  # words on the slider of the caption's length


def make_app(captioners: Mapping[str, CaptionModel]) -> Any:
    """Builds the app.

    Args:
        captioners: Captioners with an encoder by the name that a user chooses.

    Returns:
        `gradio.Blocks`; start it by `launch_app`.

    Raises:
        ImportError: If Gradio is not installed.
        ValueError: If there is no captioner.

    Example:

    >>> launch_app({"soft": Captioner.from_preset("flickr8k-soft-vgg16")})
    """
    gr = _import_gradio()
    if not captioners:
        raise ValueError("The app needs a captioner. Received: captioners={}")
    names = list(captioners)
    config = captioners[names[0]].config

    def is_hard(name: str) -> bool:
        return captioners[name].config.attention == "hard"

    def describe(
        photo: np.ndarray | None, name: str, beam: int, penalty: float, length: int, context: str
    ) -> tuple:
        if photo is None:
            return "", "", []
        found = captioners[name].caption(
            photo,
            num_results=int(beam),
            beam_size=int(beam),
            length_penalty=float(penalty),
            max_length=int(length),
            context=context if is_hard(name) else "expected",
        )
        best = found[0]
        rows = [[caption.sentence, round(_confidence(caption), 2)] for caption in found]
        return _framed(best), _note(best), rows

    with gr.Blocks(title=TITLE, analytics_enabled=False) as app:
        gr.Markdown(f"# {TITLE}\nDrop a photo, then point at a word to see where the model looked.")
        with gr.Row():
            with gr.Column(scale=1):
                photo = gr.Image(type="numpy", label="Photo", sources=["upload", "clipboard"])
                name = gr.Radio(names, value=names[0], label="Model", visible=len(names) > 1)
                beam = gr.Slider(1, 10, value=config.beam_size, step=1, label="Beam size")
                penalty = gr.Slider(
                    0, 2, value=config.length_penalty, step=0.1, label="Length penalty"
                )
                length = gr.Slider(
                    1,
                    max(LONGEST, config.max_length),
                    value=config.max_length,
                    step=1,
                    label="Longest caption, words",
                )
                context = gr.Radio(
                    CONTEXTS,
                    value="expected",
                    label="Hard attention reads",
                    visible=is_hard(names[0]),
                )
            with gr.Column(scale=2):
                widget = gr.HTML(elem_id="caption")
                note = gr.Markdown(elem_id="note")
                others = gr.Dataframe(
                    headers=["caption", "log p a word, nats"],
                    label="All captions of the beam, by log p / words ** length penalty",
                    interactive=False,
                    wrap=True,
                    elem_id="beam",
                )
        inputs = [photo, name, beam, penalty, length, context]
        changes = photo.change, name.change, context.change
        for change in (*changes, beam.release, penalty.release, length.release):
            change(describe, inputs, [widget, note, others])
        name.change(lambda name: gr.update(visible=is_hard(name)), name, context)
    return app


def launch_app(
    captioners: Mapping[str, CaptionModel],
    port: int | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> Any:
    """Starts the app on this computer alone, without anything from the network.

    In a notebook the app appears below the cell.

    Args:
        captioners: As of `make_app`.
        port: Integer, or `None` for the first free port from 7860 on.
        open_browser: Boolean, whether a browser window opens.
        block: Boolean, whether the call returns only when the app is stopped.

    Returns:
        Tuple of the `gradio.Blocks` and its address.
    """
    gr = _import_gradio()
    app = make_app(captioners)
    # Fonts of the system: the default theme loads some from the network.
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    _, address, _ = app.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        theme=theme,
    )
    if block:
        print(f"The app is at {address} (stop it by Ctrl-C).")
        app.block_thread()
    return app, address


def _import_gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            'The app needs Gradio: `pip install ".[app]"` in the checkout, or '
            f"`pip install gradio`. Received: {error}"
        ) from error
    return gradio


def _framed(caption: Any) -> str:
    """Returns a caption's widget in a frame: pages set by Gradio do not run scripts."""
    style = (
        ":root { color-scheme: light dark } body { margin: 0; font-family: system-ui, sans-serif }"
    )
    page = f"<style>{style}</style><body>{caption._repr_html_()}</body>"
    height, width = caption.image.shape[:2]
    # The widget's picture is 320 pixels wide, a line of its words at most 540.
    lines = 1 + sum(10 * len(word) + 30 for word in caption.words) // 520
    pixels = round(320 * height / width) + 45 * lines + 130
    return (
        f'<iframe title="{html.escape(caption.sentence)}" srcdoc="{html.escape(page)}" '
        f'style="width:100%;height:{pixels}px;border:0"></iframe>'
    )


def _confidence(caption: Any) -> float:
    """Returns the mean log-probability of a word, its end included, in nats."""
    return caption.log_probability / (len(caption.words) + 1)


def _note(caption: Any) -> str:
    """Returns what the model knows, where it is not sure of its sentence."""
    if _confidence(caption) >= LOW_CONFIDENCE:
        return ""
    return f"**A guess.** {WORLD}"
