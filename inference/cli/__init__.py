"""The `cat-tts` command: a module for each subcommand, and `main`."""
