"""The model of the paper, in the order of its equations.

Read `encoder` (section 3.1.1), `attention` (equations 4 to 6), `decoder` (1 to 3, 7, 13 to 15 and
the gate), `loss` (14), `hard_attention` (8 and 9) and `reinforce` (10 to 12), then `captioner`, the
`keras.Model` of it all.
"""

from sat_keras import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "encoder": ("ImageEncoder",),
        "attention": ("BahdanauAttention",),
        "hard_attention": ("HardAttention", "Sampling", "draw_locations", "gumbel_noise"),
        "decoder": ("AttentionDecoder",),
        "loss": ("cross_entropies", "doubly_stochastic_penalty"),
        "reinforce": ("Reinforce",),
        "captioner": ("Captioner",),
    },
)
