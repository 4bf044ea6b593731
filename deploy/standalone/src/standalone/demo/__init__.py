"""The demonstration: sample data, two items published through the API, and an account of who got what."""
