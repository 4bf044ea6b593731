"""`python -m subscriptions serve|work|run|migrate`."""

from shared.starting import nothing_is_garbage

with nothing_is_garbage():
    from shared.process import main
    from subscriptions.app import MIGRATIONS, build
    from subscriptions.settings import SubscriptionsSettings

if __name__ == "__main__":
    main("subscriptions", SubscriptionsSettings, build, MIGRATIONS)
