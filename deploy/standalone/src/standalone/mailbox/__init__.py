"""The mail catcher of the standalone deployment: takes every mail, sends none, and shows them at `/mailbox`."""
