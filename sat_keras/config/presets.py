"""Presets: the fields in which each kind of model differs from the defaults."""

from typing import Any

# The smallest sensible model, for tests and for trying things out.
TINY: dict[str, Any] = {
    "encoder": "scenes",
    "resize": "squash",
    "image_size": 16,
    "grid_shape": (2, 2),
    "feature_dim": 8,
    "vocabulary_size": None,
    "embedding_dim": 8,
    "hidden_dim": 8,
    "attention_dim": 8,
    "dropout": 0.0,
    "batch_size": 8,
    "epochs": 2,
}

# The drawn scenes: a small CNN, trained together with the decoder.
SCENES: dict[str, Any] = {
    "encoder": "scenes",
    "encoder_trainable": True,
    "resize": "squash",
    "image_size": 64,
    "grid_shape": (8, 8),
    "feature_dim": 128,
    "vocabulary_size": None,
    "max_length": 20,
    "embedding_dim": 64,
    "hidden_dim": 128,
    "attention_dim": 32,
    "use_output_tanh": False,
    "normalize_annotations": True,
    "use_word_query": True,
    "dropout": 0.1,
    "embedding_dropout": 0.1,
    # The penalty spreads attention over the whole picture: here a few cells matter.
    "penalty_weight": 0.0,
    "group": "picture",
    "batch_size": 80,
    "mirror": True,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "epochs": 24,
    "patience": 24,
    "beam_size": 3,
}

# The committed Flickr8k results: frozen VGG16, soft attention.
FLICKR8K: dict[str, Any] = {
    "encoder": "VGG16",
    "resize": "squash",
    "min_count": 5,
    "attention_dim": 256,
    "tie_embeddings": True,
    "normalize_annotations": True,
    "embedding_dropout": 0.4,
    "annotation_dropout": 0.2,
    # At 1 the penalty spreads attention over the whole picture.
    "penalty_weight": 0.01,
    "label_smoothing": 0.1,
    "mirror": True,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "ema_momentum": 0.998,
    "epochs": 13,
    "monitor": "bleu4",
    "precision": "auto",
}

# Training the committed Flickr8k model further on tens to hundreds of photos of one's own. A moving
# average of the weights would stay near the initial ones in so few steps.
FINETUNE: dict[str, Any] = {
    **FLICKR8K,
    "min_count": 1,
    "batch_size": 8,
    "learning_rate": 5e-4,
    "ema_momentum": 0.0,
    "monitor": "cider",
    "epochs": 20,
    "patience": 20,
    "precision": "float32",
}

# Training a Flickr8k model further on CIDEr-D itself. Captions are drawn without dropout, so that
# with it the gradient is biased; without it the captions of 6,000 pictures are learned by heart.
SELF_CRITICAL: dict[str, Any] = {
    **FLICKR8K,
    "objective": "cider",
    "group": "picture",
    "batch_size": 100,
    "dropout": 0.3,
    "embedding_dropout": 0.2,
    "label_smoothing": 0.0,
    "penalty_weight": 0.0,
    "cross_entropy_weight": 0.1,
    "learning_rate": 5e-5,
    "ema_momentum": 0.99,
    "epochs": 6,
    "patience": 6,
    "monitor": "cider",
}

# The authors' COCO script: VGG19, 10,000 words, an LSTM of 1800.
PAPER_COCO: dict[str, Any] = {"hidden_dim": 1800, "max_length": 30}
