"""What crosses a border: event contracts, and the plumbing that every service needs. No business rule lives here."""
