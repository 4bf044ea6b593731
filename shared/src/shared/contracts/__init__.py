"""The words that services say to one another, one module per producer.

Every model here is published: a field may be added with a default, never removed, renamed or narrowed. What must
change otherwise becomes a new version of the event type. This package imports pydantic alone.
"""
