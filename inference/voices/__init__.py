"""Voices: prompts and their preparation, `.catvoice` files, and adaptation of the decoder to a voice."""
