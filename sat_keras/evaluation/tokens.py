"""The tokens of the coco-caption toolkit, without Java.

The toolkit tokenizes captions by Penn Treebank conventions (Stanford's `PTBTokenizer`), lower-cases
the tokens and removes punctuation. `ptb_tokenize` reproduces this with one regular expression. All
tokens of Flickr8k's 40,460 captions are equal, as are those of text in other scripts. They may
differ for rare sequences: emoticons, runs of apostrophes, French elisions ("j'ai") and words that
mix Greek with other scripts.

These peculiarities are the toolkit's and kept on purpose:

- Brackets stay as `-lrb-` and `-rrb-`, because lower-cased tokens do not match its punctuation
  list; runs such as `!!` and `?!` stay; punctuation of other scripts stays (`。`, `।`, `،`).
- Abbreviations and single letters keep their period ("the letter P." ends in `p.`).
- Emoji outside the Basic Multilingual Plane are deleted, `❤` stays.
- Text is not normalised: `é` in one code point (NFC) and in two (NFD) are different tokens.
- Scripts without spaces are not split: `狗在跑` is one token. Segment Chinese and Thai beforehand.
- The HTML entities `&amp;`, `&lt;`, `&gt;`, `&quot;`, `&apos;` and dashes are decoded; `&eacute;`
  stays as a letter and `&#39;` as a token; others are split at `&` and `;`.

Training uses another normaliser, `sat_keras.data.tokenizer.normalize`: it runs inside `tf.data` and
unifies Unicode's variants of a character, which the toolkit's scores must not.
"""

import re

from sat_keras.evaluation.characters import SINGLE, WORD, character_class

# Punctuation that the toolkit removes. Its list has "-LRB-" too, which lower case never equals.
_PUNCTUATION = frozenset(["''", "``", *"\"'`.?!,:;-"])

# Tokens that the toolkit spells differently.
_SPELLINGS = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"£": "#", "¢": "cents", **dict.fromkeys("€¤₠\x80", "$")},
    **{"&lt;": "<", "&gt;": ">"},
}

# Variants of ASCII characters.
_TO_ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‛\x91\x92", "'"),
        **dict.fromkeys("–—―\x96\x97", " "),
        **{"…": " ... ", "¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "},
    }
)
# The toolkit removes single quotation marks and keeps pairs such as `»«` as a token.
_QUOTES = str.maketrans(
    {
        **{"“": "``", "«": "``", "\x93": "``", "‹": "`"},
        **{"”": "''", "»": "''", "\x94": "''", "›": "'"},
    }
)
_ENTITIES = {"apos": "'", "quot": '"', **dict.fromkeys(("nbsp", "md", "mdash", "ndash"), " ")}
_ENTITY = re.compile(rf"&({'|'.join(_ENTITIES)});", re.IGNORECASE)

# Abbreviations keep their period; those that are also words only with a capital letter.
_ABBREVIATIONS = (
    "mr|mrs|ms|mme|mlle|messrs|drs?|profs?|rev|hon|st|ste|ave|rd|blvd|bldg|mt|ft|jr|sr|esq"
    "|govs?|sens?|reps?|pres|supt|gen|col|capt|cpl|maj|lt|lieut|sgt|pvt|pfc|adm|cmdr"
    "|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri"
    "|inc|ltd|cos?|corp|bros|assn|univ|dept|natl|intl|mfg|plc|pty|tel|ext|est|sq|etc|al|seq|vs|cf"
    "|ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn"
    "|tenn|va|vt|wisc?|wyo|ph\\.d|ed\\.d"
)
_CAPITAL_ABBREVIATIONS = "Miss|Ark|Az|Del|Ill|La|Mass|Ore|Pa|Tex|Wash"
_ABBREVIATIONS_BEFORE_NUMBERS = "nos?|ca|figs?|pp|op|prop"


def _token_pattern() -> re.Pattern[str]:
    word = character_class(WORD)
    accented = "&[aeiou](?:acute|grave|uml);"
    # The table has both cases. Case folding would add letters that the toolkit does not know.
    alnum = rf"(?:(?-i:[A-Za-z0-9{word}])|{accented})"
    letter = rf"(?:(?!\d){alnum})"
    plain = rf"(?:(?=[^\W_]){alnum})"  # without combining marks
    hyphen = r"[-_\u058a\u2010\u2011]"
    separator = r"[.:,\u00ad\u066b\u066c]"
    slash_part = r"[a-z0-9]+(?:-[a-z]+){0,2}"
    parts = [
        # Words written as one, split before their second half: can + not
        r"can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:lem|gim)(?=me\b)|'t(?=(?:is|was)\b)",
        # Words without anything attached: the most frequent, so tried first
        r"[a-z]+(?!\S)",
        # HTML entities
        r"&(?:amp|lt|gt|ht|tl|ur|lr|qc|ql|qr|odq|cdq|#\d+);",
        # Addresses
        r"(?:https?|ftp)://[^\s<>\"']*[^\s<>\"'.,!?;:()]",
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        rf"(?:{alnum}(?:{alnum}|[-_])*\.)+(?:com|net|org|edu)\b",
        # Markup, and so <unk>
        r"</?[^\W\d_][^<>\s]*>",
        # Names such as AT&T, in capitals only
        r"(?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)",
        # Words with an apostrophe that starts no clitic: O'Brien, ma'am, rock 'n' roll, the '50s
        rf"(?:[dol]|(?-i:[A-HJ-XZn]))'{letter}{{2,}}|{letter}+[aeiouy]'[aeiou]{letter}*",
        rf"s'mores|c'mon|li'l|ol'(?!{letter})|'n'|'(?:em|till?|cause|\d0s)(?!{alnum})",
        r"(?<!\w)'\d\d(?!\w)",
        # Negations and the other clitics: did + n't, he + 's
        rf"{letter}*?(?!n){letter}(?=n't(?!{letter}))|n't(?!{letter})",
        rf"'(?:s|m|d|n|re|ve|ll)(?!{letter})",
        # Alternatives and fractions: and/or, 1/2
        rf"{slash_part}(?:/{slash_part}){{1,2}}",
        # Hyphenated words and numbers: half-eaten, 4-year-old, 1.5-inch
        rf"{alnum}(?:{alnum}|[.,])*(?:{hyphen}(?:{alnum}+(?:\.\d+)?|(?:{letter}\.)+))+",
        # Acronyms, single letters and abbreviations keep their period
        rf"[a-z](?:\.[a-z])*\.(?!{letter})",
        rf"(?:{_ABBREVIATIONS}|(?-i:{_CAPITAL_ABBREVIATIONS}))\.(?!{letter})",
        rf"(?:{_ABBREVIATIONS_BEFORE_NUMBERS})\.(?=\s*\d)",
        # Currencies and numbers: US$, 3.5, 1,000, 12:30, -5
        r"(?-i:[A-Z]*)\$",
        rf"[-+]?(?:\d+(?:{separator}\d+)+|(?:[.:,\u066b\u066c]\d+)+)|[-+]\d+(?!\w)",
        # Words, also where the space after a sentence is missing: end.Next
        rf"{letter}{alnum}*(?:[.!?]{letter}{alnum}*)*|{plain}+",
        # Super- and subscripts
        "[⁰¹²³⁴-⁹]+|[₀-₉]+",
        # Tags, names, runs of one mark, and any other mark
        r"#[a-z]\w*|@[a-z]\w*|[?!]+|''|\*+|_+|\#+|@+|<<|>>|[“”«»‹›„‚‟\x93\x94]{1,2}",
        rf"(?-i:[!-/:-@\[-`{{-~{character_class(SINGLE)}])",
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


_TOKEN = _token_pattern()


def ptb_tokenize(text: str) -> list[str]:
    """Splits a caption into the tokens that the coco-caption toolkit scores.

    Args:
        text: A caption, raw or normalised.

    Returns:
        Lower-case tokens without punctuation. An empty list for an empty text.

    Example:

    >>> ptb_tokenize("A man's dog can't swim: it's only 3 1/2 weeks old (a half-blind Lab).")
    ['a', 'man', "'s", 'dog', 'ca', "n't", 'swim', 'it', "'s", 'only', '3', '1/2', 'weeks', 'old',
     '-lrb-', 'a', 'half-blind', 'lab', '-rrb-']

    Reference:
        [Marcus et al., 1993](https://aclanthology.org/J93-2004/);
        `pycocoevalcap/tokenizer/ptbtokenizer.py` for the list of punctuation.
    """
    text = _ENTITY.sub(lambda match: _ENTITIES[match[1].lower()], text.translate(_TO_ASCII))
    tokens = (_spelling(token) for token in _TOKEN.findall(text))
    return [token for token in tokens if token not in _PUNCTUATION]


def _spelling(token: str) -> str:
    if token.isascii():
        token = token.replace("&amp;", "&")
        return _SPELLINGS.get(token.lower(), token.lower())
    # Soft hyphens vanish; a token of soft hyphens becomes a hyphen, which is punctuation.
    return _SPELLINGS.get(token, token.translate(_QUOTES).lower().replace("\u00ad", "") or "-")
