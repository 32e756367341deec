"""The decoder to compare with, as PyTorch tutorials write it.

Show, Attend and Tell run eagerly, word by word: in a Python loop over the steps the annotation
vectors are projected for the attention, an `LSTMCell` is updated and the next word is scored, for
the captions that are still running, which are sorted by length. Every caption comes with its own
copy of its picture's annotation vectors. Written for this benchmark.
"""

import torch
from torch import nn


class Attention(nn.Module):
    """Additive attention with a ReLU."""

    def __init__(self, feature_dim, hidden_dim, attention_dim):
        super().__init__()
        self.of_annotations = nn.Linear(feature_dim, attention_dim)
        self.of_hidden = nn.Linear(hidden_dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1)

    def forward(self, annotations, hidden):
        """Returns the context and the attention weights of one step."""
        layer = torch.relu(self.of_annotations(annotations) + self.of_hidden(hidden)[:, None])
        weights = torch.softmax(self.score(layer).squeeze(2), dim=1)
        return (annotations * weights[:, :, None]).sum(dim=1), weights


class Decoder(nn.Module):
    """LSTM decoder with attention and gate."""

    def __init__(self, sizes, dropout=0.5):
        super().__init__()
        width, features = sizes.width, sizes.feature_dim
        self.attention = Attention(features, width, width)
        self.embedding = nn.Embedding(sizes.vocabulary_size, width)
        self.cell = nn.LSTMCell(width + features, width)
        self.initial_hidden = nn.Linear(features, width)
        self.initial_cell = nn.Linear(features, width)
        self.gate = nn.Linear(width, features)
        self.dropout = nn.Dropout(dropout)
        self.words = nn.Linear(width, sizes.vocabulary_size)

    def forward(self, annotations, token_ids, lengths):
        """Scores the next words of captions sorted by length, the longest first."""
        embedded = self.embedding(token_ids)
        mean = annotations.mean(dim=1)
        hidden, cell = self.initial_hidden(mean), self.initial_cell(mean)
        steps = max(lengths)
        logits = annotations.new_zeros(len(lengths), steps, self.words.out_features)
        alphas = annotations.new_zeros(len(lengths), steps, annotations.shape[1])
        for t in range(steps):
            running = sum(length > t for length in lengths)
            context, weights = self.attention(annotations[:running], hidden[:running])
            context = torch.sigmoid(self.gate(hidden[:running])) * context
            inputs = torch.cat([embedded[:running, t], context], dim=1)
            hidden, cell = self.cell(inputs, (hidden[:running], cell[:running]))
            logits[:running, t] = self.words(self.dropout(hidden))
            alphas[:running, t] = weights
        return logits, alphas


def train_step(sizes, device="cpu", precision=None):
    """Returns a function that trains the decoder on one minibatch, one picture a caption.

    Args:
        sizes: `benchmarks.sizes.Sizes`.
        device: PyTorch device.
        precision: PyTorch data type of `torch.autocast`, `None` for float32 throughout.
    """
    torch.manual_seed(0)
    decoder = Decoder(sizes).to(device)
    optimizer = torch.optim.Adam(decoder.parameters(), 4e-4)
    annotations, inputs, targets = (torch.as_tensor(x, device=device) for x in sizes.batch())
    annotations = annotations.repeat_interleave(sizes.captions, dim=0)
    inputs, targets = (x.reshape(sizes.rows, -1).long() for x in (inputs, targets))
    lengths = [sizes.steps] * sizes.rows

    def step():
        with torch.autocast(device, precision, enabled=precision is not None):
            logits, alphas = decoder(annotations, inputs, lengths)
            packed = (
                nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True).data
                for x in (logits, targets)
            )
            loss = nn.functional.cross_entropy(*packed)
            loss = loss + ((1 - alphas.sum(dim=1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
