"""`budkavle`, also as `python -m standalone`."""

from shared.starting import nothing_is_garbage

with nothing_is_garbage():
    from standalone.cli import app

if __name__ == "__main__":
    app(prog_name="budkavle")
