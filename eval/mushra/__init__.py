"""A MUSHRA listening test: its trials, its page and its analysis."""
