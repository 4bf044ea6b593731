"""Tasks: what only a person can settle, kept until somebody says how it was settled."""
