"""The captioning models by the name that a config gives them, `config.system`."""

from sat_keras.baselines.log_bilinear import FactoredLogBilinear, LogBilinear
from sat_keras.baselines.maximum_entropy import MaximumEntropy
from sat_keras.baselines.recurrent import GoogleNIC, InitInject, MultimodalRNN
from sat_keras.baselines.visual_memory import VisualMemory
from sat_keras.captioning.model import CaptionModel
from sat_keras.config.config import Config
from sat_keras.paper.captioner import Captioner

SYSTEMS: dict[str, type[CaptionModel]] = {
    "show-attend-tell": Captioner,
    "init-inject": InitInject,
    "nic": GoogleNIC,
    "multimodal-rnn": MultimodalRNN,
    "log-bilinear": LogBilinear,
    "factored-log-bilinear": FactoredLogBilinear,
    "visual-memory": VisualMemory,
    "maximum-entropy": MaximumEntropy,
}


def system_of(config: Config) -> type[CaptionModel]:
    """Returns the class of a config's captioning model.

    Args:
        config: A `Config`.

    Raises:
        ValueError: If it supervises the attention of a system that has none.
    """
    if config.grounding_weight and SYSTEMS[config.system] is not Captioner:
        raise ValueError(
            "Supervised attention needs a system with attention: choose "
            "`system='show-attend-tell'` or set `grounding_weight=0`. "
            f"Received: system={config.system!r}, "
            f"grounding_weight={config.grounding_weight}"
        )
    return SYSTEMS[config.system]
