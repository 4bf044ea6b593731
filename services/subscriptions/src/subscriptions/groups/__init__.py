"""Collaboration groups: a contact person who invites and removes, invitations that are confirmed, and a way back."""
