"""The public site: pages and feeds."""
