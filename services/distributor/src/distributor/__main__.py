"""`python -m distributor serve|work|run|migrate`."""

from shared.starting import nothing_is_garbage

with nothing_is_garbage():
    from distributor.app import MIGRATIONS, build
    from distributor.settings import DistributorSettings
    from shared.process import main

if __name__ == "__main__":
    main("distributor", DistributorSettings, build, MIGRATIONS)
