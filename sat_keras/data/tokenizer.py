"""Captions to token ids and back.

One `Tokenizer` serves training, inference and scoring. Normalisation runs in TensorFlow ops, also
inside `tf.data`. TensorFlow and tensorflow-text are imported when the first caption is normalised:
`Tokenizer.detokenize`, the vocabulary and the configuration need NumPy only.
"""

import collections
import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

PAD_ID = 0
UNK_ID = 1
START_ID = 2
END_ID = 3
SPECIAL_TOKENS = ("", "<unk>", "<start>", "<end>")  # at the ids above

# Two private-use characters (blanked in the text first) replace full stops and apostrophes that
# belong to words while punctuation is removed.
_STOP, _APOSTROPHE = "\ue000", "\ue001"
_ABBREVIATION = r"\b([a-z])\.([a-z])\b", rf"\1{_STOP}\2"
_CLITIC = r"'(s|m|d|ll|re|ve)([ '-])", rf" {_APOSTROPHE}\1 \2"
# A caption that ends in a full stop, quotation marks and brackets behind it left aside.
_FULL_STOP = r"(?s).*\.[\p{Z}\s\p{Pe}\p{Pf}'\"]*"

# The rewrites, in order. RE2 has no look-around: doubled spaces give every word a blank of its
# own on both sides, and a rule whose matches may overlap (u.s.a, he'd've) is applied again.
_REWRITES = (
    (r"[\p{C}\p{Z}\s]", " "),  # controls, private use and every kind of blank
    (r"[‘’‛′`]", "'"),
    (r"[‐‑−]", "-"),
    (r"⁄", "/"),  # from the folding of vulgar fractions
    (r"[^\p{L}\p{M}\p{N} './,:_#&%=+@$-]", " "),  # punctuation, brackets, emoji, dashes
    (r"([#&%=+@$])", r" \1 "),  # symbols read aloud are words of their own
    (r"[-_/']{2,}", " "),
    # Full stops, commas and colons stay inside numbers and abbreviations: 1,000 3:45 u.s. mr.
    _ABBREVIATION,
    _ABBREVIATION,
    (rf"({_STOP}[a-z]|\b(?:mrs?|ms|dr|st|jr|sr))\.", rf"\1{_STOP}"),
    (r"[.,:]{2,}", " "),
    (r"(^|[^0-9])[.,:]", r"\1 "),
    (r"[.,:]([^0-9]|$)", r" \1"),
    # Apostrophes, hyphens and slashes stay inside words, clitics are words of their own.
    (r"^|$| ", "  "),
    (r" 'n' ", f" {_APOSTROPHE}n{_APOSTROPHE} "),
    (r"[-_/']+ ", " "),
    (r" '(em|[0-9]0s) ", rf" {_APOSTROPHE}\1 "),
    (r"([a-z])(?:n't)+([ '-])", rf"\1 n{_APOSTROPHE}t \2"),
    _CLITIC,
    _CLITIC,
    (r" [-_/']+", " "),
    (r" (can)(not) | (gon|wan)(na) | (got)(ta) | (gim|lem)(me) ", r" \1\3\5\7 \2\4\6\8 "),
    (_STOP, "."),
    (_APOSTROPHE, "'"),
    (r" +", " "),
)


def normalize(captions: Any, full_stop: bool = False) -> Any:
    """Converts captions to lower-case words separated by single spaces.

    The words are those of the coco-caption toolkit: lower case, Penn Treebank clitics (`"don't"` is
    `do n't`, `"dog's"` is `dog 's`), hyphenated words whole (`t-shirt`), punctuation removed.
    Nearly all of the 40,460 captions of Flickr8k agree with its Java tokenizer. Two differences are
    intended: brackets are removed where the toolkit writes `-lrb-`, and Unicode variants of a
    character are unified (NFKC and case folding).

    Normalisation is idempotent. Invalid UTF-8 counts as blank.

    Args:
        captions: String, a sequence of strings, or a `tf.Tensor` or `tf.RaggedTensor` of
            strings of any shape (also inside `tf.data.Dataset.map`).
        full_stop: Whether a full stop at the end of a caption stays, as a word of its own.

    Returns:
        Normalised captions: `str` for a string, `list[str]` for a sequence and a tensor of
        the same shape for a tensor.

    Raises:
        ImportError: If tensorflow-text is absent or built for another TensorFlow.
        ValueError: If a caption is not a string.

    Example:
    >>> normalize("A man's T-shirt, isn't red.")
    "a man 's t-shirt is n't red"
    >>> normalize("A dog runs.", full_stop=True)
    'a dog runs .'

    Reference:
        Notebook `01_preprocessing`.
    """
    tf, tf_text = _import_tensorflow_text()
    if not isinstance(captions, (tf.Tensor, tf.RaggedTensor)):
        single = isinstance(captions, str)
        words = _normalize_strings(tf, tf_text, _string_tensor(tf, captions), full_stop)
        decoded = [text.decode() for text in np.ravel(words.numpy())]
        return decoded[0] if single else decoded
    if isinstance(captions, tf.RaggedTensor):
        rewrite = functools.partial(_normalize_strings, tf, tf_text, full_stop=full_stop)
        return tf.ragged.map_flat_values(rewrite, captions)
    return _normalize_strings(tf, tf_text, captions, full_stop)


@keras.saving.register_keras_serializable(package="sat_keras")
@dataclasses.dataclass(frozen=True, repr=False)
class Tokenizer:
    """Maps captions to token ids and back, with a fixed vocabulary.

    1. The caption is normalised (`normalize`): lower case, no punctuation except, with `full_stop`,
       the full stop at its end, a word of its own.
    2. `<start>` is put before it and `<end>` after it.
    3. Every word is looked up; one that is not in the vocabulary becomes `<unk>`.

    Ids: 0 padding, 1 `<unk>`, 2 `<start>`, 3 `<end>` (`PAD_ID`, `UNK_ID`, `START_ID`, `END_ID`),
    then the words. A tokenizer is immutable, and equal to any other of the same arguments.

    Args:
        vocabulary: Tokens in the order of their ids, the four of `SPECIAL_TOKENS` first.
        full_stop: Whether a full stop at the end of a caption is a word.

    Raises:
        ValueError: If the vocabulary lacks a special token, repeats a token, or holds an empty
            one, one with a blank in it, or something that is not a string.

    Example:
    >>> tokenizer = Tokenizer.from_captions(["A dog runs.", "A dog's bone."])
    >>> tokenizer(["A dog", "A cat runs"]).to_list()
    [[2, 4, 5, 3], [2, 4, 1, 8, 3]]
    >>> tokenizer.detokenize([[2, 4, 5, 3], [4, 1, 8, 3, 0]])
    ['a dog', 'a <unk> runs']

    Reference:
        Xu et al. 2015, section 3.1.1 (a caption as a sequence of one-of-K words) and section 4.3
        (K = 10,000). Notebook `01_preprocessing`.
    """

    vocabulary: Sequence[str]
    full_stop: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.vocabulary, (str, bytes, Mapping)):
            raise ValueError(
                "`vocabulary` must be a sequence of strings in the order of their ids. "
                f"Received: vocabulary={self.vocabulary!r:.80}"
            )
        vocabulary = tuple(self.vocabulary)
        _check_vocabulary(vocabulary)
        object.__setattr__(self, "vocabulary", vocabulary)  # the class is frozen

    @classmethod
    def from_captions(
        cls,
        captions: Iterable[str],
        vocabulary_size: int | None = None,
        min_count: int = 1,
        full_stop: bool = False,
    ) -> "Tokenizer":
        """Builds a vocabulary of the captions' words by descending frequency, then alphabetically.

        Args:
            captions: Raw captions, of the training split only.
            vocabulary_size: Optional integer, maximum number of tokens, the four special ones
                included.
            min_count: Integer; words that occur fewer times become `<unk>`.
            full_stop: Whether a full stop at the end of a caption is a word.

        Returns:
            `Tokenizer`.

        Raises:
            ValueError: If there are no captions, one is not a string, or a bound is too small.
        """
        if vocabulary_size is not None and vocabulary_size <= len(SPECIAL_TOKENS):
            raise ValueError(
                f"`vocabulary_size` must exceed {len(SPECIAL_TOKENS)}, the number of special "
                f"tokens. Received: vocabulary_size={vocabulary_size}"
            )
        if min_count < 1:
            raise ValueError(f"`min_count` must be at least 1. Received: min_count={min_count}")
        captions = list(captions)
        if not captions:
            raise ValueError(
                "A vocabulary needs at least one caption; check the table's training split. "
                "Received: no captions"
            )
        counts = collections.Counter(" ".join(normalize(captions, full_stop)).split())
        frequent = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        return cls((*SPECIAL_TOKENS, *frequent)[:vocabulary_size], full_stop)

    def extended(
        self, captions: Iterable[str], vocabulary_size: int | None = None, min_count: int = 1
    ) -> "Tokenizer":
        """Returns a tokenizer that also knows the words of captions. The ids of old words stay.

        Args:
            captions, vocabulary_size, min_count: Arguments of `from_captions`, which chooses the
                words.

        Returns:
            `Tokenizer`. New words follow the old ones, by descending frequency.

        Raises:
            ValueError: As in `from_captions`.

        Example:
        >>> Tokenizer.from_captions(["a dog"]).extended(["a red cat"]).get_vocabulary()[4:]
        ['a', 'dog', 'cat', 'red']
        """
        found = Tokenizer.from_captions(captions, vocabulary_size, min_count, self.full_stop)
        known = set(self.vocabulary)
        new = (word for word in found.vocabulary if word not in known)
        return Tokenizer((*self.vocabulary, *new), self.full_stop)

    def __call__(self, captions: Any) -> Any:
        """Returns the token ids of captions, `<start>` and `<end>` included.

        Args:
            captions: String, a sequence of strings, or a tensor of strings, raw.

        Returns:
            Int32 ids: a `tf.RaggedTensor` of shape `(batch_size, None)` for a sequence, with one
            more ragged axis than a tensor of captions, and a `tf.Tensor` of shape `(steps,)`
            for one string.

        Raises:
            ImportError: If tensorflow-text is absent or built for another TensorFlow.
            ValueError: If a caption is not a string.
        """
        tf, _ = _import_tensorflow_text()
        if not isinstance(captions, (tf.Tensor, tf.RaggedTensor)):
            captions = _string_tensor(tf, captions)
        start, end = SPECIAL_TOKENS[START_ID], SPECIAL_TOKENS[END_ID]
        # Captions cannot contain special tokens: normalisation removes angle brackets.
        words = self.normalize(captions)
        text = tf.strings.join([start, words, end], separator=" ")
        return tf.ragged.map_flat_values(self._table.lookup, tf.strings.split(text))

    def normalize(self, captions: Any) -> Any:
        """Returns the words of captions, separated by blanks: `normalize` with `full_stop`."""
        return normalize(captions, self.full_stop)

    def detokenize(self, token_ids: Any) -> Any:
        """Returns the captions of token ids. Does not need TensorFlow.

        A caption stops at the first `<end>`; `<start>` and padding are left out.

        Args:
            token_ids: Integers of shape `(steps,)` or `(batch_size, steps)`: arrays, tensors,
                ragged tensors or nested lists with rows of any length. More leading axes are
                allowed.

        Returns:
            Words joined by spaces: `str` for `(steps,)`, `list[str]` for
            `(batch_size, steps)`, lists of lists for more axes.

        Raises:
            ValueError: If an id is not an integer or lies outside the vocabulary.
        """
        if hasattr(token_ids, "to_list"):  # tf.RaggedTensor
            token_ids = token_ids.to_list()
        if not isinstance(token_ids, (list, tuple)):
            token_ids = keras.ops.convert_to_numpy(token_ids)
        if any(np.ndim(row) or isinstance(row, (list, tuple)) for row in token_ids):
            return [self.detokenize(row) for row in token_ids]
        if isinstance(token_ids, np.ndarray) and token_ids.ndim > 1:
            return []  # no rows at all
        return self._sentence(np.asarray(token_ids))

    @property
    def vocabulary_size(self) -> int:
        """Number K of tokens, the four special ones included."""
        return len(self.vocabulary)

    def get_vocabulary(self) -> list[str]:
        """Returns the tokens in the order of their ids."""
        return list(self.vocabulary)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration as JSON types."""
        return {"vocabulary": list(self.vocabulary), "full_stop": self.full_stop}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Tokenizer":
        """Creates a tokenizer from the result of `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"Tokenizer(vocabulary_size={self.vocabulary_size})"

    def __reduce__(self) -> tuple:
        # The lookup table is rebuilt, not copied.
        return type(self), (self.vocabulary, self.full_stop)

    def _sentence(self, token_ids: np.ndarray) -> str:
        if token_ids.size == 0:
            return ""
        if token_ids.dtype.kind not in "iu":
            raise ValueError(f"Token ids must be integers. Received: dtype={token_ids.dtype}")
        if token_ids.min() < 0 or token_ids.max() >= self.vocabulary_size:
            raise ValueError(
                f"Token ids must lie in [0, {self.vocabulary_size}), the vocabulary's; ids of "
                "another model need that model's tokenizer. Received: ids from "
                f"{token_ids.min()} to {token_ids.max()}"
            )
        ended = np.maximum.accumulate(token_ids == END_ID)
        kept = token_ids[~ended & (token_ids != PAD_ID) & (token_ids != START_ID)]
        return " ".join(self.vocabulary[token_id] for token_id in kept)

    @functools.cached_property
    def _table(self) -> Any:
        tf, _ = _import_tensorflow_text()
        with tf.init_scope():  # outside of the graph in which it is first used
            ids = tf.range(self.vocabulary_size, dtype=tf.int32)
            initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(self.vocabulary), ids)
            return tf.lookup.StaticHashTable(initializer, default_value=UNK_ID)


def _import_tensorflow_text() -> tuple[Any, Any]:
    try:
        import tensorflow as tf
        import tensorflow_text as tf_text
    # A tensorflow-text built for another TensorFlow fails with tf.errors.NotFoundError.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ImportError(
            "Normalising captions needs TensorFlow and the tensorflow-text of its minor version: "
            "`pip install tensorflow-text==2.N.*` for TensorFlow 2.N (on Windows, which has no "
            "wheels of it, use WSL 2). Detokenizing and saved vocabularies work without it. "
            f"Received: {reason}"
        ) from error
    return tf, tf_text


def _string_tensor(tf: Any, captions: str | Iterable[str]) -> Any:
    if isinstance(captions, str):
        return tf.constant(_encode([captions])[0])
    return tf.constant(_encode(captions), dtype=tf.string)


def _encode(captions: Iterable[str]) -> list[bytes]:
    encoded = []
    for row, caption in enumerate(captions):
        if not isinstance(caption, (str, bytes)):
            raise ValueError(
                "Every caption must be a string; drop the table's rows without one. "
                f"Received: {caption!r:.80} ({type(caption).__name__}) at position {row}"
            )
        # UTF-8 cannot encode lone surrogates.
        encoded.append(caption.encode("utf-8", "replace") if isinstance(caption, str) else caption)
    return encoded


def _normalize_strings(tf: Any, tf_text: Any, captions: Any, full_stop: bool) -> Any:
    captions = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8", replacement_char=0x20)
    captions = tf.strings.regex_replace(captions, "´", "'")  # folding would make it two marks
    captions = tf_text.case_fold_utf8(captions)  # NFKC_Casefold: NFKC is included
    ends = tf.strings.regex_full_match(captions, _FULL_STOP)
    for pattern, rewrite in _REWRITES:
        captions = tf.strings.regex_replace(captions, pattern, rewrite)
    captions = tf.strings.strip(captions)
    if not full_stop:
        return captions
    return tf.where(ends & (captions != ""), captions + " .", captions)


def _check_vocabulary(vocabulary: tuple) -> None:
    for token_id, token in enumerate(vocabulary):
        if not isinstance(token, str):
            raise ValueError(
                "Every token of a vocabulary must be a string. "
                f"Received: {token!r:.80} ({type(token).__name__}) at id {token_id}"
            )
    if vocabulary[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
        raise ValueError(
            f"A vocabulary must begin with the special tokens {list(SPECIAL_TOKENS)}; "
            "`Tokenizer.from_captions` puts them there. "
            f"Received: {list(vocabulary[: len(SPECIAL_TOKENS)])}"
        )
    for token_id, token in enumerate(vocabulary[1:], start=1):
        if token.split() != [token]:
            raise ValueError(
                f"A token must be a word without blanks. Received: {token!r:.80} at id {token_id}"
            )
    token, count = max(collections.Counter(vocabulary).items(), key=operator.itemgetter(1))
    if count > 1:
        raise ValueError(
            f"A vocabulary must hold every token once. Received: {token!r:.80} {count} times"
        )
