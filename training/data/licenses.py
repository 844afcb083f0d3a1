"""Licenses of corpora: hints for a filter, not legal advice. Read the license before you publish."""

LICENSES = {
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
"""License of the recordings, by the corpus's name in small letters and digits. VoxBox's own labels of all of
them are CC-BY-NC-SA-4.0."""
COMMERCIAL = ("apache", "mit", "cc0", "cc-by", "odbl", "public domain")
"""Beginnings of names of licenses that allow commercial use, unless the rest of the name excludes it."""


def license_of(corpus: str) -> str:
    """Return the license of a corpus by its usual name, in any spelling; "unknown" if it is not listed."""
    return LICENSES.get("".join(letter for letter in corpus.lower() if letter.isalnum()), "unknown")


def allows_commercial_use(license: str) -> bool:
    """Return whether a license is known to allow commercial use; an unknown license does not."""
    name = license.lower().replace(" ", "-").replace("public-domain", "public domain")
    parts = name.split("-")
    return name.startswith(COMMERCIAL) and "nc" not in parts and "nd" not in parts
