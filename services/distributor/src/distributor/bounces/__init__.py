"""Bounces and complaints: what comes back after a server had accepted a mail (see docs/bounces.md).

return_path → mime → reading → classifying turn bytes into a `Report`; applying writes it down; intake, listener and
mailbox are the ways in.
"""
