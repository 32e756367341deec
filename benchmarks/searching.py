"""Beam search: all pictures' beams in one compiled loop, against a Python loop picture by picture.

The loop does the same search with the same weights as the PyTorch tutorial does, and like that
looks for as many captions as there are beams. `--strongest` compares with `strongest_search`, which
searches for all pictures of a batch at once, eagerly and compiled; `--roofline` with the time that
the search's matrix products take alone.
"""

import argparse
import importlib.util
import json
import time

import numpy as np

from benchmarks.measure import REPOSITORY, in_turns, repeated, run_part, spread
from sat_keras.training.fit import SEARCH_BATCH
from sat_keras.training.pretrained import load_pretrained

PRETRAINED = "flickr8k-soft-vgg16"
BEAMS = 5
BATCH = SEARCH_BATCH
STEPS = 20  # of the matrix products, which one call times
SAMPLE = REPOSITORY / "outputs" / "benchmarks" / "sample.npy"
LARGE_SAMPLE = SAMPLE.with_name("sample-of-batches.npy")


def compiled(rounds, pictures):
    """Returns pictures a second of captioning from cached features, and of the loop on a sample."""
    from benchmarks.data import dev_captions, dev_features
    from sat_keras.evaluation.scores import score_captions
    from sat_keras.training.fit import caption_pictures

    features = dev_features()
    references = dev_captions().groupby("image_id", sort=False)["caption"].agg(list)
    image_ids = list(references.index)
    captioners = {
        precision: load_pretrained(PRETRAINED, encoder=False, dtype=precision)
        for precision in ("float32", "mixed_bfloat16")
    }
    for captioner in captioners.values():  # compiles
        caption_pictures(captioner, features, image_ids[:BATCH], beam_size=BEAMS)
    seconds, loop_seconds, texts = {precision: [] for precision in captioners}, [], {}
    SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLE, features.read(features.lookup(image_ids[:pictures])).numpy())
    for _ in range(rounds):
        for precision, captioner in captioners.items():
            start = time.perf_counter()
            found = caption_pictures(captioner, features, image_ids, beam_size=BEAMS)
            seconds[precision].append(time.perf_counter() - start)
            texts[precision] = [caption.text for caption in found]
        # In a process of its own, where PyTorch has the cores for itself.
        part = run_part("benchmarks.searching", "--loop")
        loop_seconds.append(part["seconds"])
    loop_rate = pictures / np.array(loop_seconds)
    rates = {name: len(image_ids) / np.array(values) for name, values in seconds.items()}
    bleu4 = {
        name: score_captions(
            dict(zip(image_ids, texts[name], strict=True)), dict(references), ["coco"], ("bleu",)
        )["coco"]["bleu4"]
        for name in texts
    }
    return {
        "beam_bleu4": bleu4["float32"],
        "beam_bleu4_bfloat16": bleu4["mixed_bfloat16"],
        "beam_vs_loop": spread(rates["float32"] / loop_rate),
        "beam_vs_loop_bfloat16": spread(rates["mixed_bfloat16"] / loop_rate),
        "beam_same_captions": share_of_same(texts["float32"], part["texts"]),
        "beam_same_captions_bfloat16": share_of_same(texts["mixed_bfloat16"], texts["float32"]),
        "beam_pictures": len(image_ids),
        "beam_loop_sample": pictures,
        "pictures_per_second": {
            **{name: spread(rate) for name, rate in rates.items()},
            "loop": spread(loop_rate),
        },
    }


def against_the_strongest(rounds, batches):
    """Returns how fast captioning is against `strongest_search`, on the same pictures in turns."""
    if importlib.util.find_spec("torch") is None:
        return {}
    from benchmarks.data import dev_captions, dev_features
    from sat_keras.training.fit import caption_pictures

    features = dev_features()
    image_ids = list(dev_captions()["image_id"].unique()[: batches * BATCH])
    captioner = load_pretrained(PRETRAINED, encoder=False)
    caption_pictures(captioner, features, image_ids[:BATCH], beam_size=BEAMS)  # compiles
    LARGE_SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    np.save(LARGE_SAMPLE, features.read(features.lookup(image_ids)).numpy())
    seconds = {"ours": [], "eager": [], "compiled": []}
    for _ in range(rounds):
        start = time.perf_counter()
        found = caption_pictures(captioner, features, image_ids, beam_size=BEAMS)
        seconds["ours"].append(time.perf_counter() - start)
        part = run_part("benchmarks.searching", "--strongest-alone")
        for name in ("eager", "compiled"):
            seconds[name].append(part["seconds"][name])
    rates = {name: len(image_ids) / np.array(values) for name, values in seconds.items()}
    best = max(("eager", "compiled"), key=lambda name: np.median(rates[name]))
    return {
        "beam_vs_strongest": spread(rates["ours"] / rates[best]),
        "beam_same_captions_strongest": share_of_same(
            [caption.text for caption in found], part["texts"][best]
        ),
        "beam_strongest_sample": len(image_ids),
        "pictures_per_second_strongest": {name: spread(rate) for name, rate in rates.items()},
    }


def against_the_roofline(rounds, batches):
    """Returns what share of captioning's time its matrix products take at the rate of their shapes.

    Counted are the products of the steps that the captions have, and those of a batch, its keys and
    the projected vocabulary. Search takes more steps: a caption is best when no other can reach it.
    """
    from benchmarks.data import dev_captions, dev_features
    from sat_keras.training.fit import caption_pictures

    features = dev_features()
    image_ids = list(dev_captions()["image_id"].unique()[: batches * BATCH])
    captioner = load_pretrained(PRETRAINED, encoder=False)
    of_step, of_batch = products(captioner)
    found = {}

    def search():
        found["captions"] = caption_pictures(captioner, features, image_ids, beam_size=BEAMS)

    seconds = in_turns({"search": search, "step": of_step, "batch": of_batch}, rounds, pause=1.0)
    steps = sum(len(caption.words) + 1 for caption in found["captions"])
    ideal = steps / BATCH * seconds["step"] / STEPS + batches * seconds["batch"]
    return {"beam_vs_roofline": spread(ideal / seconds["search"])}


def products(captioner):
    """Returns functions that compute the matrix products of `STEPS` steps, and of a batch."""
    import tensorflow as tf

    config, words = captioner.config, captioner.vocabulary_size
    rows, regions, features = BATCH * BEAMS, config.num_regions, config.feature_dim
    hidden, embedding, attention = config.hidden_dim, config.embedding_dim, config.attention_dim

    def product(rows, width, columns, *batch):
        left, right = (
            tf.random.normal((*batch, *shape)) for shape in ((rows, width), (width, columns))
        )
        return lambda: tf.matmul(left, right)

    step = [
        product(rows, hidden, attention + 1 + 4 * hidden),  # query, gate and LSTM
        product(BEAMS, regions, features, BATCH),  # context
        product(rows, features, 4 * hidden),  # context to LSTM
        product(rows, hidden, embedding),  # deep output
        product(rows, features, embedding),
        product(rows, embedding, words),
    ]
    batch = [
        product(BATCH * regions, features, attention),  # keys
        product(words, embedding, 4 * hidden),  # words to LSTM
    ]
    return [
        repeated(lambda run=run: [f() for f in run], n) for run, n in ((step, STEPS), (batch, 1))
    ]


def strongest_alone(captioner, annotations, backend="inductor"):
    """Captions batches by `strongest_search`, eagerly and compiled; returns seconds and captions.

    The first batch compiles, and so do the sizes to which a batch shrinks: all of it runs twice.
    """
    from benchmarks.strongest_search import Search

    found = {"seconds": {}, "texts": {}}
    for name in ("eager", "compiled"):
        search = Search(captioner, BEAMS, backend if name == "compiled" else None)
        for _ in range(2):
            start = time.perf_counter()
            parts = range(0, len(annotations), BATCH)
            tokens = [
                x for i in parts for x in search(annotations[i : i + BATCH].astype("float32"))
            ]
            texts = [captioner.tokenizer.detokenize(np.array(caption)) for caption in tokens]
            found["seconds"][name] = time.perf_counter() - start
        found["texts"][name] = texts
    return found


def share_of_same(texts, others):
    """Returns the share of common pictures with the same caption."""
    return float(np.mean([text == other for text, other in zip(texts, others, strict=False)]))


def loop(captioner, annotations):
    """Captions pictures one by one; returns seconds and captions."""
    from benchmarks import tutorial_search

    config = captioner.config
    decoder = tutorial_search.Decoder(captioner.decoder, annotations.shape[-1])
    options = BEAMS, config.length_penalty, config.max_length + 1
    tutorial_search.search(decoder, annotations[0], *options)
    start = time.perf_counter()
    found = [tutorial_search.search(decoder, one, *options) for one in annotations]
    seconds = time.perf_counter() - start
    texts = [captioner.tokenizer.detokenize(np.array(tokens)) for tokens in found]
    return {"seconds": seconds, "texts": texts}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", action="store_true", help="the loop on the sample, for itself")
    parser.add_argument("--strongest", action="store_true", help="compare with the strongest")
    parser.add_argument("--strongest-alone", action="store_true", help="it alone on its sample")
    parser.add_argument("--roofline", action="store_true", help="compare with its products")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=30, help="pictures of the loop's sample")
    parser.add_argument("--batches", type=int, default=5, help="of 64, the strongest's sample")
    options = parser.parse_args(arguments)
    if options.strongest_alone:
        captioner = load_pretrained(PRETRAINED, encoder=False)
        print(json.dumps(strongest_alone(captioner, np.load(LARGE_SAMPLE))))
        return
    if options.strongest:
        print(json.dumps(against_the_strongest(options.rounds, options.batches)))
        return
    if options.roofline:
        print(json.dumps(against_the_roofline(options.rounds, options.batches)))
        return
    if options.loop:
        captioner = load_pretrained(PRETRAINED, encoder=False)
        print(json.dumps(loop(captioner, np.load(SAMPLE).astype("float32"))))
        return
    print(json.dumps(compiled(options.rounds, options.pictures)))


if __name__ == "__main__":
    main()
