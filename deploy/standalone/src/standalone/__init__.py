"""All of Budkavle in one process: what is written to run it, watch it and operate it from the command line."""
