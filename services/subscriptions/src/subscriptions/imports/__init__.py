"""Imports: lists of people and rolls on their way in, a row each, carried by a worker and shown while they are."""
