"""A scripted mailbox, over IMAP or POP3, as far as a reader of bounces needs one."""

import asyncio


class Post:
    """A scripted mailbox over IMAP or POP3: what is in it, and what was removed for good."""

    def __init__(self, mails: list[bytes]) -> None:
        self.mails = dict(enumerate(mails, 1))
        self.seen: set[int] = set()
        self.marked: set[int] = set()
        self.broken: set[int] = set()
        """Mails that cannot be fetched."""
        self.log: list[str] = []

    async def serve(self, protocol: str, port: int) -> asyncio.Server:
        """Listen; `protocol` is `imap` or `pop`."""
        return await asyncio.start_server(getattr(self, protocol), "127.0.0.1", port)

    def put(self, mail: bytes) -> int:
        """One more mail; gives its number."""
        number = max(self.mails, default=0) + 1
        self.mails[number] = mail
        return number

    async def imap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK IMAP4rev1\r\n")
        while line := (await reader.readline()).decode().strip():
            tag, _, command = line.partition(" ")
            self.log.append(command)
            words = command.upper().split()
            refused = words[:2] == ["UID", "FETCH"] and int(words[2]) in self.broken
            if not refused:
                await self._imap_answer(command.upper(), writer)
            writer.write(f"{tag} {'NO broken' if refused else 'OK done'}\r\n".encode())
            await writer.drain()
            if command.upper().startswith("LOGOUT"):
                break
        writer.close()

    async def _imap_answer(self, command: str, writer: asyncio.StreamWriter) -> None:
        words = command.split()
        if words[0] == "CAPABILITY":
            writer.write(b"* CAPABILITY IMAP4rev1\r\n")
        elif words[:2] == ["UID", "SEARCH"]:
            waiting = " ".join(str(key) for key in self.mails if key not in self.seen | self.marked)
            writer.write(f"* SEARCH {waiting}\r\n".encode())
        elif words[:2] == ["UID", "FETCH"]:
            body = self.mails[int(words[2])]
            writer.write(f"* {words[2]} FETCH (UID {words[2]} BODY[]<0> {{{len(body)}}}\r\n".encode() + body + b")\r\n")
        elif words[:2] == ["UID", "STORE"]:
            (self.marked if "DELETED" in command else self.seen).add(int(words[2]))
        elif words[0] == "EXPUNGE":
            self._purge()

    async def pop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n")
        while line := (await reader.readline()).decode().strip():
            self.log.append(line)
            word, _, number = line.partition(" ")
            if word == "UIDL":
                writer.write(b"+OK\r\n" + b"".join(f"{key} u{key}\r\n".encode() for key in self.mails) + b".\r\n")
            elif word == "RETR" and int(number) in self.broken:
                writer.write(b"-ERR broken\r\n")
            elif word == "RETR":
                stuffed = self.mails[int(number)].replace(b"\r\n.", b"\r\n..")
                writer.write(b"+OK\r\n" + stuffed + b"\r\n.\r\n")
            else:
                if word == "DELE":
                    self.marked.add(int(number))
                writer.write(b"+OK\r\n")
            await writer.drain()
            if word == "QUIT":
                self._purge()
                break
        writer.close()

    def _purge(self) -> None:
        self.mails = {key: mail for key, mail in self.mails.items() if key not in self.marked}
