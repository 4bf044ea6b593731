"""What stops a demo."""


class Failed(Exception):
    """Something did not go as it must; the text is the one line that the user sees."""
