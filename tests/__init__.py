"""The suite: what Budkavle promises, shown at its borders."""
