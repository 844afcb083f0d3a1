"""What corpora may be used for. Hints for a filter, not legal advice: read the licence before you publish."""

LICENCES = {
    "aishell3": "Apache-2.0",
    "casia": "research only",
    "commonvoice": "CC0-1.0",
    "commonvoicecn": "CC0-1.0",
    "crema": "ODbL-1.0",
    "cremad": "ODbL-1.0",
    "dailytalk": "CC-BY-SA-4.0",
    "emilia": "CC-BY-NC-4.0",
    "emiliacn": "CC-BY-NC-4.0",
    "emiliaen": "CC-BY-NC-4.0",
    "emiliazh": "CC-BY-NC-4.0",
    "emns": "Apache-2.0",
    "emovdb": "research only",
    "esd": "research only",
    "expresso": "CC-BY-NC-4.0",
    "gigaspeech": "research only",
    "hifitts": "CC-BY-4.0",
    "hqconversations": "research only",
    "iemocap": "research only",
    "jlcorpus": "CC0-1.0",
    "librispeech": "CC-BY-4.0",
    "libritts": "CC-BY-4.0",
    "librittsr": "CC-BY-4.0",
    "ljspeech": "public domain",
    "m3ed": "research only",
    "magicdata": "CC-BY-NC-ND-4.0",
    "mead": "research only",
    "meld": "research only",
    "mer2023": "research only",
    "mlsen": "CC-BY-4.0",
    "mlsenglish": "CC-BY-4.0",
    "msppodcast": "research only",
    "ncssdclcn": "research only",
    "ncssdclen": "research only",
    "ncssdrccn": "research only",
    "ncssdrlen": "research only",
    "ravdess": "CC-BY-NC-SA-4.0",
    "savee": "research only",
    "tess": "CC-BY-NC-ND-4.0",
    "vctk": "CC-BY-4.0",
    "wenetspeech4tts": "research only",
}
"""Of the recordings, by the corpus's name in small letters and digits. VoxBox's own labels of all of them are
CC-BY-NC-SA-4.0."""
COMMERCIAL = ("apache", "mit", "cc0", "cc-by", "odbl", "public domain")
"""How the names of licences begin that do not exclude commercial use, if they do not say so."""


def licence_of(corpus: str) -> str:
    """The licence of a corpus by its usual name, however it is spelled; "unknown" if it is none of ours."""
    return LICENCES.get("".join(letter for letter in corpus.lower() if letter.isalnum()), "unknown")


def allows_commercial_use(licence: str) -> bool:
    """Whether a licence is one that is known not to exclude it: what is unknown may exclude anything."""
    name = licence.lower().replace(" ", "-").replace("public-domain", "public domain")
    parts = name.split("-")
    return name.startswith(COMMERCIAL) and "nc" not in parts and "nd" not in parts
