"""Codes of whole signals, and the `.cat` files that hold them."""
