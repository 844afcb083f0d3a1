"""The HTTP server: OpenAI's speech API, its limits, errors, metrics and voices, and how it is run."""
