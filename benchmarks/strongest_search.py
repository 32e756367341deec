"""The strongest PyTorch beam search we can write: all pictures of a batch at once, compiled.

The rules are those of `sat_keras.beam_search` for the best caption, so the captions must be equal.
The first step has one hypothesis a picture. A step, from words to the new states, is one function,
which `torch.compile` turns into kernels for any number of pictures. Pictures that are finished
leave the batch as soon as they are half of it. Attention maps are not kept; ours are.
"""

import math

import torch
from torch import nn

from benchmarks.strongest import Decoder
from sat_keras.data.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID
from sat_keras.search.loop import FORCED_END

NEVER = [PAD_ID, START_ID, UNK_ID]


class Search:
    """Beam search with a trained decoder.

    Args:
        captioner: `Captioner` to take weights and the options of the search of.
        beam_size: Integer, hypotheses of a picture.
        backend: That of `torch.compile`, such as `"inductor"`, or `None` to run eagerly.
    """

    def __init__(self, captioner, beam_size, backend=None):
        self.decoder = Decoder(captioner.decoder).eval()
        self.beam_size = beam_size
        self.length_penalty = captioner.config.length_penalty
        self.longest = captioner.config.max_length + 1
        self.step = (
            torch.compile(self._step, backend=backend, dynamic=True) if backend else self._step
        )

    def _step(self, is_last, words, log_p, hidden, cell, annotations, keys):
        """Continues the hypotheses of all pictures by a word.

        Args:
            is_last: Boolean, whether captions can only end.
            words, log_p: Last word and log-probability, shape `(pictures, beams)`.
            hidden, cell: States, shape `(pictures, beams, width)`.
            annotations, keys: Of a picture, shape `(pictures, regions, ...)`.

        Returns:
            Tuple of the new words, log-probabilities, hidden and cell states, and of the beams that
            they continue.
        """
        embedded = self.decoder.embedding(words)
        of_word = self.decoder.of_word(embedded)
        hidden, cell, context, _ = self.decoder.step(of_word, hidden, cell, annotations, keys)
        logits = self.decoder.output(embedded, hidden, context)
        norm = logits.logsumexp(dim=-1, keepdim=True)
        if is_last:
            end = (logits[..., END_ID : END_ID + 1] - norm).clamp(min=FORCED_END)
            likeliest = nn.functional.pad(end, (0, self.beam_size - 1), value=-math.inf)
            tokens = torch.full_like(likeliest, END_ID, dtype=torch.long)
        else:
            candidates = min(self.beam_size + len(NEVER), logits.shape[-1])
            likeliest, tokens = logits.topk(candidates)
            allowed = torch.stack([tokens != token for token in NEVER]).all(dim=0)
            likeliest = torch.where(allowed, likeliest - norm, -math.inf)
        log_p, flat = (log_p[..., None] + likeliest).flatten(1).topk(self.beam_size)
        words, parents = tokens.flatten(1).gather(1, flat), flat // tokens.shape[-1]
        hidden, cell = (_select(x, parents) for x in (hidden, cell))
        return words, log_p, hidden, cell, parents

    @torch.no_grad()
    def __call__(self, annotations):
        """Returns the token ids of each picture's best caption, END included.

        Args:
            annotations: Array of shape `(pictures, num_regions, feature_dim)`.
        """
        annotations, keys, *states = self.decoder.start(torch.from_numpy(annotations))
        states = [state[:, None] for state in states]
        number = len(annotations)
        pictures, captions = torch.arange(number), [[] for _ in range(number)]
        best = torch.full((number,), -math.inf)
        words, log_p = torch.full((number, 1), START_ID), torch.zeros(number, 1)
        tokens = torch.zeros(number, 1, 0, dtype=torch.long)
        for length in range(1, self.longest + 1):
            is_last = length == self.longest
            words, log_p, *states, parents = self.step(
                is_last, words, log_p, *states, annotations, keys
            )
            tokens = torch.cat([_select(tokens, parents), words[..., None]], dim=-1)
            ended = words == END_ID
            scores = torch.where(ended, log_p, -math.inf) / length**self.length_penalty
            score, beam = scores.max(dim=1)
            for row in (score > best).nonzero()[:, 0].tolist():
                captions[pictures[row]] = tokens[row, beam[row]].tolist()
            best = torch.maximum(best, score)
            in_reach = log_p / self.longest**self.length_penalty > best[:, None]
            log_p = torch.where(in_reach & ~ended, log_p, -math.inf)
            going = (log_p > -math.inf).any(dim=1).nonzero()[:, 0]
            if not len(going):
                break
            if 2 * len(going) <= len(pictures):
                kept = (pictures, best, words, log_p, tokens, annotations, keys, *states)
                kept = [x[going] for x in kept]
                pictures, best, words, log_p, tokens, annotations, keys, *states = kept
        return captions


def _select(x, beams):
    """Takes beams of a tensor `(pictures, beams, ...)`."""
    return x.gather(1, beams[..., None].expand(-1, -1, x.shape[-1]))
