"""Webhooks: intranets register an endpoint (`api`, `endpoints`, `urls`), and items are posted to it (`sending`).

`sending` is the channel that the ledger sees. It signs (`signing`) a body (`body`) and hands both, with the endpoint's
own headers (`own_headers`), to `client`, which dials only what `addresses` allows. `trial` sends a test at an
operator's word.
"""
