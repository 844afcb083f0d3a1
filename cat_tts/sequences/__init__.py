"""The sequences that models read: rows, the plain and the conversation format, and what training drops."""
