"""Beam search: all pictures' beams in one compiled loop, against a Python loop picture by picture.

The loop does the same search with the same weights, run eagerly by PyTorch where that is installed:
one picture at a time, its beams as the batch of a step, and lists of Python for what is kept, as
tutorials write it.
"""

import argparse
import importlib.util
import json
import math
import time

import keras
import numpy as np
from keras import ops

from benchmarks.measure import REPOSITORY, run_part, spread
from sat_keras.pretrained import load_pretrained
from sat_keras.tokenizer import END_ID, PAD_ID, START_ID, UNK_ID

PRETRAINED = "flickr8k-soft-vgg16"
BEAMS = 5
BATCH = 64
SAMPLE = REPOSITORY / "outputs" / "benchmarks" / "sample.npy"


def compiled(rounds, pictures):
    """Pictures a second of `CaptionSearch`, and the loop's on a sample of the pictures."""
    from benchmarks.data import dev_captions, dev_features
    from sat_keras.captioner import caption_search

    features = dev_features()
    image_ids = dev_captions()["image_id"].unique()
    annotations = features.read(features.lookup(image_ids)).numpy()
    captioner = load_pretrained(PRETRAINED, encoder=False)
    search = caption_search(captioner, beam_size=BEAMS)
    search.predict({"annotations": annotations[:BATCH]}, batch_size=BATCH, verbose=0)
    seconds, loop_seconds, loop_texts = [], [], []
    SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLE, annotations[:pictures])
    for _ in range(rounds):
        start = time.perf_counter()
        found = search.predict({"annotations": annotations}, batch_size=BATCH, verbose=0)
        seconds.append(time.perf_counter() - start)
        part = run_part("benchmarks.searching", "--loop", environment=loop_environment())
        loop_seconds.append(part["seconds"])
        loop_texts = part["texts"]
    texts = [caption.text for caption in captioner.read(found)]
    rate, loop_rate = len(annotations) / np.array(seconds), pictures / np.array(loop_seconds)
    return {
        "beam_vs_loop": spread(rate / loop_rate),
        "beam_pictures": len(annotations),
        "beam_loop_sample": pictures,
        "beam_same_captions": sum(map(str.__eq__, texts, loop_texts)) / pictures,
        "pictures_per_second": {"compiled": spread(rate), "loop": spread(loop_rate)},
    }


def loop_environment():
    """The loop's backend: PyTorch, or the one of this process."""
    has_torch = importlib.util.find_spec("torch") is not None
    return {"KERAS_BACKEND": "torch" if has_torch else keras.backend.backend()}


def loop():
    """Caption the sample picture by picture."""
    captioner = load_pretrained(PRETRAINED, encoder=False)
    annotations = np.load(SAMPLE).astype("float32")
    with no_gradients():
        search_one(captioner, annotations[0])
        start = time.perf_counter()
        found = [search_one(captioner, one) for one in annotations]
        seconds = time.perf_counter() - start
    texts = [captioner.tokenizer.detokenize(np.array(tokens)) for tokens in found]
    return {"seconds": seconds, "texts": texts}


def no_gradients():
    """PyTorch records operations unless it is told not to."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return keras.StatelessScope()


def search_one(captioner, annotations):
    """Beam search over one picture, as `sat_keras.search.beam_search` defines it."""
    config, decoder = captioner.config, captioner.decoder
    longest = config.max_length + 1
    annotations, keys = decoder.read_annotations(ops.convert_to_tensor(annotations[None]))
    hidden, cell = decoder.initial_state(annotations)
    states = {"hidden": hidden, "cell": cell}
    live, finished = [([START_ID], 0.0)], []
    for length in range(1, longest + 1):
        last = np.array([[tokens[-1] for tokens, _ in live]], "int32")
        logits, states, _ = decoder.step(ops.convert_to_tensor(last), states, annotations, keys)
        logits = ops.convert_to_numpy(ops.log_softmax(ops.cast(logits, "float32"), axis=-1))[0]
        logits[:, [PAD_ID, START_ID, UNK_ID]] = -math.inf
        if length == longest:
            logits[:, [i for i in range(logits.shape[1]) if i != END_ID]] = -math.inf
        total = logits + np.array([[score] for _, score in live])
        continued, parents = [], []
        for place in np.argsort(-total, axis=None, kind="stable")[:BEAMS]:
            parent, token = divmod(int(place), total.shape[1])
            hypothesis = ([*live[parent][0], token], float(total[parent, token]))
            if token == END_ID:
                finished.append((hypothesis[1] / length**config.length_penalty, hypothesis[0]))
            elif np.isfinite(hypothesis[1]):
                continued.append(hypothesis)
                parents.append(parent)
        finished = sorted(finished, key=lambda pair: -pair[0])[:BEAMS]
        least = finished[-1][0] if len(finished) == BEAMS else -math.inf
        keep = [score / longest**config.length_penalty > least for _, score in continued]
        live = [hypothesis for hypothesis, kept in zip(continued, keep, strict=True) if kept]
        if not live:
            break
        parents = [parent for parent, kept in zip(parents, keep, strict=True) if kept]
        states = {name: ops.take(state, parents, axis=1) for name, state in states.items()}
    return finished[0][1][1:]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", action="store_true", help="the loop on the sample, for itself")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=30, help="pictures of the loop's sample")
    options = parser.parse_args(arguments)
    print(json.dumps(loop() if options.loop else compiled(options.rounds, options.pictures)))


if __name__ == "__main__":
    main()
