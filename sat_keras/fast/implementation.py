"""Which implementation of the decoder's loop runs, decided in one place."""

import keras

from sat_keras.config.fields import check_choice

IMPLEMENTATIONS = ("auto", "reference", "fused")


def check_implementation(implementation: str) -> str:
    """Returns the name of an implementation, or raises if there is none of that name.

    Args:
        implementation: `"auto"`, `"reference"` or `"fused"`.

    Returns:
        The same string.

    Raises:
        ValueError: If it is another one.
    """
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    return implementation


def choose_implementation(implementation: str, decoder: keras.Layer) -> tuple[str, str | None]:
    """Chooses between the reference loop over the decoder's layers and the fused loop.

    The fused loop reads the layers' kernels as float32 or half-precision matrices. It does not
    support layers whose kernels Keras has replaced (quantization), nor float64.

    Args:
        implementation: What the user asked for: `"auto"`, `"reference"` or `"fused"`.
        decoder: An `AttentionDecoder`.

    Returns:
        Tuple of `"reference"` or `"fused"`, and the reason why the fused loop is not used where
        `"auto"` falls back, else `None`.

    Raises:
        ValueError: If `"fused"` is asked for and not supported.
    """
    if check_implementation(implementation) == "reference":
        return "reference", None
    reason = _unsupported(decoder)
    if reason is None:
        return "fused", None
    if implementation == "fused":
        raise ValueError(
            f"The fused loop does not support this decoder: {reason}. Use "
            "`implementation='auto'` or 'reference'. Received: implementation='fused'"
        )
    return "reference", reason


def _unsupported(decoder: keras.Layer) -> str | None:
    """Returns why the fused loop does not support a decoder, or `None`."""
    if decoder.compute_dtype == "float64":
        return "it computes in float64, the fused loop in float32"
    # Keras quantizes a layer in place: its kernel is then integers with a scale.
    layers = [layer for layer in decoder._flatten_layers() if layer is not decoder]
    for layer in layers:
        mode = getattr(layer, "quantization_mode", None)
        if mode:
            return f"its layer {layer.name!r} is quantized to {mode}"
        if layer.compute_dtype != decoder.compute_dtype:
            return f"its layer {layer.name!r} computes in {layer.compute_dtype}"
    return None
