"""Newsroom desks: the address that stays when people come and go, and whether it is still the right one."""
