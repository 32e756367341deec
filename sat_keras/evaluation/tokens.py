"""The tokens of the coco-caption toolkit, without Java.

The toolkit cuts captions by the Penn Treebank's conventions (Stanford's `PTBTokenizer`),
lower-cases them and drops punctuation. `ptb_tokenize` does the same in one regular expression. On
Flickr8k's 40,460 captions all tokens are equal; they may differ in what captions hardly contain,
such as emoticons.

What surprises is the toolkit's and kept on purpose: brackets stay, as `-lrb-` and `-rrb-`, for they
are compared with the list of punctuation after lower-casing; runs such as `!!` and `?!` stay; so do
the periods of abbreviations and single letters ("the letter P." ends in `p.`).
"""

import re

# Marks that the toolkit drops. Its list has "-LRB-" too, which lower-cased tokens never match.
_PUNCTUATION = frozenset(["''", *"\"'`.?!,:;-"])

# Tokens that the toolkit spells in its own way.
_SPELLINGS = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"£": "#", "€": "$", "¢": "cents"},
}

# Marks that ASCII writes otherwise.
_TO_ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‛", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("‐‑", "-"),
        **dict.fromkeys("–—―\u200b", " "),
        **{"…": " ... ", "¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 "},
    }
)

# Words that keep their period; those that are words as well only with a capital letter.
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


def _token_pattern():
    letter, alnum = r"[^\W\d_]", r"[^\W_]"
    slash_part = rf"{alnum}+(?:-{letter}+){{0,2}}"
    parts = [
        # Words written as one, cut before their second half: can + not
        r"can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:lem|gim)(?=me\b)|'t(?=(?:is|was)\b)",
        # Words with nothing attached: most, and so tried before the rarer ones
        rf"{letter}+(?!\S)",
        # Addresses
        r"(?:https?|ftp)://[^\s<>\"']*[^\s<>\"'.,!?;:()]",
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        rf"(?:{alnum}[\w-]*\.)+(?:com|net|org|edu)\b",
        # Markup, and so <unk>
        rf"</?{letter}[^<>\s]*>",
        # Names such as AT&T, in capitals only
        r"(?-i:[A-Z]+(?:[+&][A-Z]+)+)",
        # Words with an apostrophe that starts no clitic: O'Brien, ma'am, rock 'n' roll, the '50s
        rf"(?:[dol]|(?-i:[A-HJ-XZ]))'{letter}{{2,}}|{letter}+[aeiouy]'[aeiou]{letter}*",
        rf"s'mores|c'mon|li'l|ol'(?!{letter})|'n'|'(?:em|till?|cause|\d0s)(?!{alnum})",
        r"(?<!\w)'\d\d(?!\w)",
        # Negations and the other clitics: did + n't, he + 's
        rf"{letter}*?(?!n){letter}(?=n't(?!{letter}))|n't(?!{letter})",
        rf"'(?:s|m|d|n|re|ve|ll)(?!{letter})",
        # Alternatives and fractions: and/or, 1/2
        rf"{slash_part}(?:/{slash_part}){{1,2}}",
        # Hyphenated words and numbers: half-eaten, 4-year-old, 1.5-inch
        rf"{alnum}(?:{alnum}|[.,])*(?:[-_](?:{alnum}+(?:\.\d+)?|(?:{letter}\.)+))+",
        # Acronyms, single letters and abbreviations keep their period
        rf"{letter}(?:\.{letter})*\.(?!{letter})",
        rf"(?:{_ABBREVIATIONS}|(?-i:{_CAPITAL_ABBREVIATIONS}))\.(?!{letter})",
        rf"(?:{_ABBREVIATIONS_BEFORE_NUMBERS})\.(?=\s*\d)",
        # Currencies and numbers: US$, 3.5, 1,000, 12:30, -5
        r"(?-i:[A-Z]*)\$",
        r"[-+]?(?:\d+(?:[.:,]\d+)+|(?:[.,]\d+)+)|[-+]\d+(?!\w)",
        # Words, also where the space after a sentence was forgotten: end.Next
        rf"{letter}{alnum}*(?:[.!?]{letter}{alnum}*)*|{alnum}+",
        # Tags, names, runs of one mark, and any other mark
        rf"#{letter}\w*|@{letter}\w*|[?!]+|''|\*+|_+|\#+|@+|\S",
    ]
    return re.compile("|".join(parts), re.IGNORECASE)


_TOKEN = _token_pattern()


def ptb_tokenize(text: str) -> list[str]:
    """Cuts a caption into the tokens that the coco-caption toolkit scores.

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
    text = text.translate(_TO_ASCII)
    tokens = (_SPELLINGS.get(token, token.lower()) for token in _TOKEN.findall(text))
    return [token for token in tokens if token not in _PUNCTUATION]
