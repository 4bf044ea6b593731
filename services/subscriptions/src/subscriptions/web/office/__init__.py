"""The office's pages, `/kansli`: for the organisation's own people, signed in with a key."""
