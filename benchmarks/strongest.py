"""The strongest PyTorch decoder we can write: the same model as ours, nothing computed twice.

Keys are projected once a picture, and its captions (or beams) share them and the annotation
vectors. What multiplies the hidden state is one matrix, what multiplies the words one product for
all steps, and so is the output layer, after the loop. Adam is PyTorch's fused one. `torch.compile`
turns the whole loop, forwards and backwards, into kernels. The weights are those of a `sat_keras`
decoder, so that a test can require equal outputs and gradients.
"""

import torch
from torch import nn

from benchmarks.tutorial_search import check_decoder, linear, tensor


class Decoder(nn.Module):
    """Soft attention, gate, LSTM and deep output.

    Args:
        decoder: `sat_keras.paper.decoder.AttentionDecoder` to take the weights of.
        dropout: Dropout rate of hidden state and output.

    Raises:
        ValueError: If the decoder has parts that are not here.
    """

    def __init__(self, decoder, dropout=0.0):
        super().__init__()
        check_decoder(decoder)
        attention = decoder.attention
        self.widths = [decoder.attention_dim, 4 * decoder.hidden_dim, 1]
        self.epsilon = decoder.normalize.epsilon if decoder.normalize_annotations else None
        self.keys = linear(attention.key_projection)
        self.score = nn.Parameter(tensor(attention.score_vector.kernel).reshape(-1))
        # Query, the LSTM's part of the hidden state, and gate.
        of_hidden = (attention.query_projection, decoder.lstm_hidden, decoder.gate)
        self.of_hidden = nn.Linear(decoder.hidden_dim, sum(self.widths), bias=False)
        self.of_hidden.weight.data = torch.cat([tensor(x.kernel) for x in of_hidden], 1).T.clone()
        self.gate_bias = nn.Parameter(tensor(decoder.gate.bias))
        self.of_word = linear(decoder.lstm_embedding)
        self.of_context = linear(decoder.lstm_context)
        self.initial_hidden = linear(decoder.initial_hidden)
        self.initial_cell = linear(decoder.initial_cell)
        self.embedding = nn.Embedding.from_pretrained(
            tensor(decoder.embedding.embeddings), freeze=False
        )
        self.output_hidden = linear(decoder.output_hidden)
        self.output_context = linear(decoder.output_context)
        if decoder.tie_embeddings:
            self.words = nn.Linear(decoder.embedding_dim, decoder.vocabulary_size, bias=False)
            self.words.weight = self.embedding.weight
        else:
            self.words = linear(decoder.output_words)
        self.dropout = nn.Dropout(dropout)

    def start(self, annotations):
        """Prepares pictures: annotation vectors, keys, and the first states `(pictures, width)`."""
        if self.epsilon is not None:
            shape = annotations.shape[-1:]
            annotations = nn.functional.layer_norm(annotations, shape, eps=self.epsilon)
        mean = annotations.mean(dim=1)
        hidden, cell = self.initial_hidden(mean).tanh(), self.initial_cell(mean).tanh()
        return annotations, self.keys(annotations), hidden, cell

    def step(self, of_word, hidden, cell, annotations, keys):
        """One step of the loop, of all captions of all pictures.

        Args:
            of_word: The word's part of the LSTM, shape `(pictures, captions, 4 * width)`.
            hidden, cell: Shape `(pictures, captions, width)`.
            annotations, keys: Of a picture, shape `(pictures, regions, ...)`.

        Returns:
            Tuple of hidden and cell state, context and attention weights.
        """
        query, of_hidden, gate = self.of_hidden(hidden).split(self.widths, dim=-1)
        layer = torch.tanh(keys[:, None] + query[:, :, None])
        if torch.compiler.is_compiling():  # one kernel for tanh, product and sum
            scores = (layer * self.score).sum(dim=-1)
        else:
            scores = layer @ self.score
        weights = torch.softmax(scores, dim=-1)
        beta = torch.sigmoid(gate + self.gate_bias)
        context = beta * (weights.to(annotations.dtype) @ annotations)
        i, f, g, o = (of_word + of_hidden + self.of_context(context)).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, cell, context, weights

    def output(self, embedded, hidden, context):
        """Scores the next words, of any number of steps at once."""
        output = self.output_hidden(self.dropout(hidden)) + self.output_context(context)
        return self.words(self.dropout(torch.tanh(embedded + output)))

    def forward(self, annotations, token_ids):
        """Reads captions `(pictures, captions, steps)`; returns logits and attention weights."""
        embedded = self.embedding(token_ids)
        of_words = self.of_word(embedded)
        annotations, keys, hidden, cell = self.start(annotations)
        hidden, cell = (x[:, None].expand(-1, token_ids.shape[1], -1) for x in (hidden, cell))
        steps = []
        for of_word in of_words.unbind(dim=2):
            hidden, cell, *rest = self.step(of_word, hidden, cell, annotations, keys)
            steps.append((hidden, *rest))
        hidden, context, weights = (torch.stack(x, dim=2) for x in zip(*steps, strict=True))
        return self.output(embedded, hidden, context), weights


def loss_of(decoder, annotations, token_ids, targets):
    """The loss of `sat_keras.Captioner` for captions without padding: equation 14, lambda = 1."""
    logits, weights = decoder(annotations, token_ids)
    words = nn.functional.cross_entropy(
        logits.float().flatten(0, 2), targets.flatten(), reduction="sum"
    )
    penalty = ((1 - weights.float().sum(dim=2)) ** 2).sum()
    return (words + penalty) / (targets.shape[0] * targets.shape[1])


def train_step(sizes, captioner, precision=None, backend=None, device="cpu"):
    """Returns a function that trains the decoder on one minibatch, and returns the loss.

    Args:
        sizes: `benchmarks.sizes.Sizes`.
        captioner: `Captioner` of these sizes, to take the weights and the dropout rate of.
        precision: PyTorch data type of `torch.autocast`, `None` for float32 throughout.
        backend: That of `torch.compile`, such as `"inductor"`, or `None` to run eagerly.
        device: PyTorch device.
    """
    torch.manual_seed(0)
    decoder = Decoder(captioner.decoder, captioner.decoder.dropout).to(device)
    optimizer = torch.optim.Adam(decoder.parameters(), 4e-4, fused=True)
    annotations, inputs, targets = (torch.as_tensor(x, device=device) for x in sizes.batch())
    inputs, targets = inputs.long(), targets.long()
    function = torch.compile(loss_of, backend=backend, dynamic=False) if backend else loss_of

    def step():
        with torch.autocast(device, precision, enabled=precision is not None):
            loss = function(decoder, annotations, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
