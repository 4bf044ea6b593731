"""What the ledger holds about one recipient, for that recipient."""
