"""Beam search as PyTorch tutorials write it: picture by picture, in a Python loop over the steps.

The beams of one picture form the batch of a step; every beam has its own copy of the annotation
vectors, which are projected again in every step; Python lists hold the results. Equations and
weights are those of a trained `sat_keras` decoder and the rules those of
`sat_keras.search.beam_search`, so the captions must be equal.
"""

import math

import numpy as np
import torch
from keras import ops
from torch import nn

from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID

NEVER = [PAD_ID, START_ID, UNK_ID]


class Decoder(nn.Module):
    """A trained decoder with soft attention, gate and deep output.

    Args:
        decoder: `sat_keras.paper.decoder.AttentionDecoder` to take the weights of.
        feature_dim: Integer, size of the annotation vectors.

    Raises:
        ValueError: If the decoder has parts that are not here.
    """

    def __init__(self, decoder, feature_dim):
        super().__init__()
        attention = decoder.attention
        check_decoder(decoder)
        self.epsilon = decoder.normalize.epsilon if decoder.normalize_annotations else None
        self.of_annotations = linear(attention.key_projection)
        self.of_hidden = linear(attention.query_projection)
        self.score = linear(attention.score_vector)
        self.gate = linear(decoder.gate)
        self.initial_hidden = linear(decoder.initial_hidden)
        self.initial_cell = linear(decoder.initial_cell)
        self.embedding = nn.Embedding.from_pretrained(tensor(decoder.embedding.embeddings))
        self.cell = nn.LSTMCell(decoder.embedding_dim + feature_dim, decoder.hidden_dim)
        blocks = decoder.lstm_embedding.kernel, decoder.lstm_context.kernel
        self.cell.weight_ih.data = torch.cat([tensor(block) for block in blocks]).T.contiguous()
        self.cell.weight_hh.data = tensor(decoder.lstm_hidden.kernel).T.contiguous()
        self.cell.bias_ih.data = tensor(decoder.lstm_embedding.bias)
        self.cell.bias_hh.data.zero_()
        self.output_hidden = linear(decoder.output_hidden)
        self.output_context = linear(decoder.output_context)
        self.words = nn.Linear(decoder.embedding_dim, decoder.vocabulary_size, bias=False)
        self.words.weight = self.embedding.weight
        if not decoder.tie_embeddings:
            self.words = linear(decoder.output_words)

    def read(self, annotations):
        """Normalises a picture's annotation vectors if the decoder does."""
        if self.epsilon is None:
            return annotations
        return nn.functional.layer_norm(annotations, annotations.shape[-1:], eps=self.epsilon)

    def forward(self, annotations, token_ids, hidden, cell):
        """Scores the next words of all beams: log-probabilities, new states, attention weights."""
        embedded = self.embedding(token_ids)
        layer = torch.tanh(self.of_annotations(annotations) + self.of_hidden(hidden)[:, None])
        weights = torch.softmax(self.score(layer).squeeze(2), dim=1)
        context = (annotations * weights[:, :, None]).sum(dim=1)
        context = torch.sigmoid(self.gate(hidden)) * context
        hidden, cell = self.cell(torch.cat([embedded, context], dim=1), (hidden, cell))
        output = embedded + self.output_hidden(hidden) + self.output_context(context)
        log_probabilities = torch.log_softmax(self.words(torch.tanh(output)), dim=1)
        return log_probabilities, hidden, cell, weights


def check_decoder(decoder):
    """Raises a `ValueError` for a decoder with parts that are not here."""
    if decoder.word_query or decoder.hard_attention or not decoder.use_output_tanh:
        raise ValueError(
            "The loop knows soft attention and the deep output with a tanh, without word "
            f"queries: compare it with such a decoder. Received: {decoder.get_config()}"
        )


def tensor(weight):
    """Copies a Keras variable."""
    return torch.from_numpy(np.array(ops.convert_to_numpy(weight), "float32"))


def linear(dense):
    """Converts a Keras layer with a kernel, and perhaps a bias, to a PyTorch layer."""
    bias = getattr(dense, "bias", None)
    layer = nn.Linear(*dense.kernel.shape, bias=bias is not None)
    layer.weight.data = tensor(dense.kernel).T.contiguous()
    if bias is not None:
        layer.bias.data = tensor(bias)
    return layer


@torch.no_grad()
def search(decoder, annotations, beam_size, length_penalty, longest):
    """Searches for one picture's best caption.

    Args:
        decoder: `Decoder`.
        annotations: Array of shape `(num_regions, feature_dim)`.
        beam_size, length_penalty: As in `sat_keras.beam_search`.
        longest: Integer, its `max_length`.

    Returns:
        List of token ids, END included.
    """
    annotations = decoder.read(torch.from_numpy(annotations)[None])
    mean = annotations.mean(dim=1)
    hidden = torch.tanh(decoder.initial_hidden(mean))
    cell = torch.tanh(decoder.initial_cell(mean))
    words, totals = torch.tensor([[START_ID]]), torch.zeros(1, 1)
    maps, finished = torch.ones(1, 1, annotations.shape[1]), []
    for length in range(1, longest + 1):
        scores, hidden, cell, weights = decoder(annotations, words[:, -1], hidden, cell)
        scores[:, NEVER] = -math.inf
        if length == longest:
            scores[:, torch.arange(scores.shape[1]) != END_ID] = -math.inf
        totals, places = (totals + scores).view(-1).topk(beam_size)
        parents, tokens = places // scores.shape[1], places % scores.shape[1]
        words = torch.cat([words[parents], tokens[:, None]], dim=1)
        maps = torch.cat([maps[parents], weights[parents][:, None]], dim=1)
        for beam in range(beam_size):
            total = totals[beam].item()
            if tokens[beam] == END_ID and math.isfinite(total):
                finished.append((total / length**length_penalty, words[beam, 1:], maps[beam, 1:]))
        finished = sorted(finished, key=lambda found: -found[0])[:beam_size]
        least = finished[-1][0] if len(finished) == beam_size else -math.inf
        going = [
            beam
            for beam in range(beam_size)
            if tokens[beam] != END_ID and totals[beam].item() / longest**length_penalty > least
        ]
        if not going:
            break
        parents = parents[going]
        words, maps, totals = words[going], maps[going], totals[going, None]
        hidden, cell = hidden[parents], cell[parents]
        annotations = annotations[parents]
    return finished[0][1].tolist()
