"""The processes that sign: what happens when one dies, stands still, or cannot be started."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from tests.eventually import eventually

from distributor.mail.dkim import SigningKey
from distributor.mail.signing import SigningFailed, SigningProcesses

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = ed25519.Ed25519PrivateKey.generate()
DIGESTS = [sha256(bytes([number])).digest() for number in range(40)]


def running() -> Iterator[int]:
    """Our children that sign."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, state = (process / "cmdline").read_bytes(), (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if b"distributor.mail.signer" in words and int(state[1]) == os.getpid():
            yield int(process.name)


@pytest.fixture
async def signing_processes() -> AsyncIterator[SigningProcesses]:
    processes = SigningProcesses([SigningKey("r", RSA), SigningKey("e", ED)], patience_s=2.0)
    yield processes
    await processes.close()
    assert not [*running()]


async def signed(processes: SigningProcesses) -> None:
    """All digests are, with both keys."""
    all_signed = await asyncio.gather(*(processes.sign([digest, digest]) for digest in DIGESTS))
    for digest, (by_rsa, by_ed) in zip(DIGESTS, all_signed, strict=True):
        RSA.public_key().verify(by_rsa, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        ED.public_key().verify(by_ed, digest)


async def test_each_core_signs(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    assert len([*running()]) == len(os.sched_getaffinity(0))


async def test_what_a_dead_process_leaves_behind_is_signed_by_the_next(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    under_way = asyncio.create_task(signed(signing_processes))
    await asyncio.sleep(0)
    for process in running():
        os.kill(process, signal.SIGKILL)
    await under_way
    await signed(signing_processes)


async def test_a_process_that_stands_still_is_ended(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    for process in running():
        os.kill(process, signal.SIGSTOP)
    await signed(signing_processes)


async def test_who_is_cancelled_takes_nobody_elses_signature(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    gone = [asyncio.create_task(signing_processes.sign([digest, digest])) for digest in DIGESTS[::2]]
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    await signed(signing_processes)


async def test_a_group_that_is_told_to_end_still_signs(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    for process in running():
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGINT)
    before = set(running())
    await signed(signing_processes)
    assert set(running()) == before


async def test_without_a_process_nothing_waits(
    signing_processes: SigningProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SigningFailed):
        await signing_processes.sign(DIGESTS[:2])
    monkeypatch.undo()
    await signed(signing_processes)


async def test_a_process_ends_with_whoever_asked_it(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    await signing_processes.close()
    await eventually(lambda: not [*running()])
