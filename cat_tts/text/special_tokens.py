"""Ids of the special tokens in every model trained here; text never becomes the first four."""

SPECIAL_IDS = 5
PAD_ID, AUDIO_START_ID, AUDIO_END_ID, SLOT_ID, UNKNOWN_ID = range(SPECIAL_IDS)
