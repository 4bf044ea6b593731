"""`python -m content serve|work|run|migrate`."""

from shared.starting import nothing_is_garbage

with nothing_is_garbage():
    from content.app import MIGRATIONS, build
    from content.settings import ContentSettings
    from shared.process import main

if __name__ == "__main__":
    main("content", ContentSettings, build, MIGRATIONS)
