"""Synthetic speech corpora: texts dealt to pseudo-speakers, spoken by a teacher, an existing TTS system."""
