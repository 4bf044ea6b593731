"""Rolls: who sits in a council or board in one mandate period; imported whole, compared first, weeded afterwards."""
