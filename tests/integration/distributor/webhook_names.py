"""A small internet of its own: a name server that lies, and a listener on every address that it tells.

    unshare --map-root-user --net --mount python -m tests.integration.distributor.webhook_names DENIED.json DIRECTORY

The denied addresses stand on this namespace's own interface, so that a connection to one would succeed and be counted.
It prints a JSON object: `connections`, how many each address had, and `answers`, what the client said of each name.
"""

import asyncio
import ipaddress
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from tests.servers.certificates import CertificateAuthority

from distributor.webhooks.addresses import AddressPolicy
from distributor.webhooks.client import Answer, WebhookClient

PUBLIC, INSIDE, METADATA = "93.184.215.14", "10.0.0.1", "169.254.169.254"
RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
TURNS = 6


class NameServer(asyncio.DatagramProtocol):
    """Answers for the names of `records`; one that has several answers gives them in turn."""

    def __init__(self, records: dict[str, list[list[str]]]) -> None:
        self._records = records
        self._asked: Counter[tuple[str, int]] = Counter()
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        if name == "silent.test":
            return
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if name == "servfail.test":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self._records and not name.startswith("cname"):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        else:
            self._tell(reply, question, name)
        self._transport.sendto(reply.to_wire(), addr)

    def _tell(self, reply: Any, question: Any, name: str) -> None:
        if name == "cname.test":
            reply.answer.append(dns.rrset.from_text("cname.test.", 0, "IN", "CNAME", "inside.test."))
            name = "inside.test"
        turns, turn = self._records[name], self._asked[name, question.rdtype]
        self._asked[name, question.rdtype] += 1
        wanted = 6 if question.rdtype == dns.rdatatype.AAAA else 4
        told = [one for one in turns[turn % len(turns)] if ipaddress.ip_address(one).version == wanted]
        if told:
            reply.answer.append(dns.rrset.from_text(f"{name}.", 0, "IN", "AAAA" if wanted == 6 else "A", *told))


def settle(addresses: Iterable[str], directory: Path) -> None:
    """Make the addresses ours, and the name server the machine's, in this namespace alone."""
    resolver = directory / "resolv.conf"
    resolver.write_text(RESOLVER)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(resolver), "/etc/resolv.conf"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in addresses:  # a few, such as broadcast, can be nobody's
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=False, capture_output=True)


async def listen(directory: Path, names: Iterable[str]) -> tuple[Counter[str], str]:
    """Take connections on every address; gives the count of them, and the authority to trust."""
    seen: Counter[str] = Counter()
    authority = CertificateAuthority()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = ipaddress.ip_address(writer.get_extra_info("sockname")[0].partition("%")[0])
        seen[str(getattr(address, "ipv4_mapped", None) or address)] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    context = authority.server_context(*names)
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        await asyncio.start_server(answer, host, 443, family=family, ssl=context)
    return seen, str(authority.write(directory / "authority.pem"))


async def main(denied: list[str], directory: Path) -> None:
    records = {"public.test": [[PUBLIC]], "inside.test": [[INSIDE]]}
    records |= {"rebound.test": [[PUBLIC], [METADATA]]}
    records |= {f"denied{number}.test": [[address]] for number, address in enumerate(denied)}
    records |= {f"mixed{number}.test": [[PUBLIC, address]] for number, address in enumerate(denied)}
    settle([PUBLIC, INSIDE, METADATA, *denied], directory)
    names = [*records, "cname.test", "servfail.test", "silent.test", "nowhere.test"]
    seen, authority = await listen(directory, names)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: NameServer(records), local_addr=("127.0.0.1", 53))
    answers: dict[str, list[Any]] = {}
    for name in names:
        for _ in range(TURNS if name == "rebound.test" else 1):
            async with WebhookClient(AddressPolicy(), timeout_s=5, ca_file=authority) as client:
                answer = await client.post(f"https://{name}/hook", {}, b"{}")
            answers.setdefault(name, []).append(answer.status if isinstance(answer, Answer) else answer.why)
    print(json.dumps({"connections": seen, "answers": answers}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])))
