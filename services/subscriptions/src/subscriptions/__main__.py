"""`python -m subscriptions serve|work|run|migrate`."""

from shared.process import main
from subscriptions.app import MIGRATIONS, build
from subscriptions.settings import SubscriptionsSettings

if __name__ == "__main__":
    main("subscriptions", SubscriptionsSettings, build, MIGRATIONS)
