"""The processes that sign: what happens when one dies, stands still, or cannot be started."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.eventually import eventually
from tests.integration.distributor.test_mail_signed import press_dispatch, signing_settings
from tests.servers.smtp import SmtpServer

from distributor.channels import Fault
from distributor.mail.dkim import SigningKey
from distributor.mail.sending import MailSender
from distributor.mail.signing import SigningFailed, SigningProcesses
from shared.contracts.delivery import DeliveryState

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


async def test_there_is_a_process_for_each_core_up_to_four(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    assert len([*running()]) == min(4, os.cpu_count() or 1)


async def test_a_key_may_be_of_any_size() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2052)
    processes = SigningProcesses([SigningKey("r", key)])
    for digest in DIGESTS[:3]:
        [signature] = await processes.sign([digest])
        key.public_key().verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    await processes.close()


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
    begun = asyncio.create_task(signed(signing_processes))
    await eventually(lambda: len([*running()]) > 0)
    for _ in range(2):  # at its very start, and when it signs
        for process in running():
            os.kill(process, signal.SIGTERM)
            os.kill(process, signal.SIGINT)
        before = set(running())
        await begun
        begun = asyncio.create_task(signed(signing_processes))
    await begun
    assert set(running()) >= before


async def test_nothing_is_taken_from_the_working_directory(
    signing_processes: SigningProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "socket.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    await signed(signing_processes)


async def test_without_a_process_nothing_waits(
    signing_processes: SigningProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SigningFailed):
        await signing_processes.sign(DIGESTS[:2])
    monkeypatch.undo()
    await signed(signing_processes)


def none_left(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


async def test_where_no_process_can_be_started_nothing_waits(
    signing_processes: SigningProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signed(signing_processes)
    monkeypatch.setattr("subprocess.Popen", none_left)
    for process in running():
        os.kill(process, signal.SIGKILL)
    refused = await asyncio.gather(
        *(signing_processes.sign([digest, digest]) for digest in DIGESTS), return_exceptions=True
    )
    assert {type(each) for each in refused} == {SigningFailed}
    monkeypatch.undo()
    await signed(signing_processes)


async def test_a_mail_that_cannot_be_signed_waits_as_for_a_relay_that_is_away(
    tmp_path: Path, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "dkim.pem"
    pem.write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sender, dispatch = MailSender(signing_settings(smtp_server, pem)), press_dispatch()
    monkeypatch.setattr("subprocess.Popen", none_left)
    outcome = await sender.send(dispatch)
    assert (outcome.state, outcome.fault, outcome.counts) == (DeliveryState.DEFERRED, Fault.SYSTEM, False)
    monkeypatch.undo()
    assert (await sender.send(dispatch)).state is DeliveryState.SENT
    await sender.close()


async def test_who_still_waits_at_the_end_is_told(signing_processes: SigningProcesses) -> None:
    await signed(signing_processes)
    for process in running():
        os.kill(process, signal.SIGSTOP)
    late = asyncio.create_task(signing_processes.sign(DIGESTS[:2]))
    await asyncio.sleep(0)
    await signing_processes.close()
    with pytest.raises(SigningFailed):
        await late
    assert not [*running()]
