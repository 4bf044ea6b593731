"""The office's own room: who has come in with a key, and how people are found in it."""
