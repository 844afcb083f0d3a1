"""The page in the browser: its two tabs, their cards, and one user's session."""
