"""Files in and out: audio files, model folders, and files that are written whole or not at all."""
