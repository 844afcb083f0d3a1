"""CAT-ASR: codes to text, and how well codes say a given text."""
