"""One client's part in a round of masked updates, from the end of its training on."""

from fedaq.codec.chunks import expected
from fedaq.codec.payload import Payload
from fedaq.errors import ProtocolError
from fedaq.privacy.keys import DIGEST_BYTES, KEY_BYTES, SEALED_BYTES, PublicKeys
from fedaq.privacy.shares import is_share
from fedaq.privacy.sizes import CERTIFICATE_BYTES, SIGNATURE_BYTES
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.chunk_limits import check_count, check_size, most_chunks
from fedaq_server.rounds.incoming import Incoming
from fedaq_server.rounds.masking import Masking
from fedaq_server.rounds.reports import Report, receive_masked_report
from fedaq_server.rounds.round import Round
from fedaq_server.transport.client import Client, Phase


async def exchange_masked(client: Client, current: Round, masking: Masking) -> Report:
    """Carry a client that has the model through the rest of the round.

    Raises
    ------
    ProtocolError, DeclinedError, DisconnectedError
        As of `exchange`; and a `ProtocolError` if the round has no sum. An update that was
        received counts all the same, if there is one.
    """
    name = client.name
    keys, training_j = await receive_masked_report(client, current)
    masking.paid_up(name, keys.ByteSize())
    client.enter(Phase.SENDING)
    roster = await masking.brought_keys(name, _proved(name, keys, masking))
    await _send(client, masking, pb.ServerMessage(mask_roster=roster))
    sealed = await _receive_shares(client, masking)
    shares = await masking.brought_shares(name, sealed)
    await _send(client, masking, pb.ServerMessage(mask_shares=shares))
    check = (await expected(client.expect, "share_check")).share_check
    masking.paid_up(name, check.ByteSize())
    members = await masking.brought_check(name, frozenset(check.unfit))
    await _send(client, masking, pb.ServerMessage(mask_set=members))
    update = await _receive_update(client, current, masking)
    header = Payload(current.state.spec, current.plan.grid)
    report = Report(client, current.weights[name], (), 0.0, header, 0, None, training_j)
    request = await masking.brought_update(report, update)
    await _send(client, masking, pb.ServerMessage(unmask=request))
    revealed = await _receive_unmasking(client, masking, request)
    await masking.brought_unmasking(name, revealed)
    await client.send(pb.ServerMessage(receipt=pb.Receipt(round=current.number)))
    return masking.reports[name]


async def _send(client: Client, masking: Masking, message: pb.ServerMessage) -> None:
    masking.down[client.name] += message.ByteSize()
    await client.send(message)


def _proved(name: str, message: pb.MaskKeys, masking: Masking) -> PublicKeys:
    """Return a client's keys, if they can be, and are its own.

    Raises
    ------
    ProtocolError
        If they are not.
    """
    keys = (message.cipher_key, message.mask_key, message.seed_digest)
    due = [KEY_BYTES, KEY_BYTES, DIGEST_BYTES]
    if [len(key) for key in keys] != due:
        raise _unfit(f"keys and a digest of {[len(key) for key in keys]} bytes; {due} are due")
    if len(message.certificate) > CERTIFICATE_BYTES or len(message.signature) > SIGNATURE_BYTES:
        raise _unfit(
            f"a certificate has {CERTIFICATE_BYTES} bytes at the most, a signature "
            f"{SIGNATURE_BYTES}"
        )
    if masking.authority is None:
        # Nobody could say whose it is.
        return PublicKeys(*keys)
    proved = PublicKeys(*keys, message.certificate, message.signature)
    why = masking.authority.why_not(masking.context, name, proved)
    if why:
        raise _unfit(f"{name}: {why}")
    return proved


async def _receive_shares(client: Client, masking: Masking) -> dict[int, bytes]:
    message = (await expected(client.expect, "mask_shares")).mask_shares
    masking.paid_up(client.name, message.ByteSize())
    sealed = {share.peer: share.sealed for share in message.shares}
    due = set(masking.circle[masking.numbers[client.name]])
    if len(message.shares) != len(due) or sealed.keys() != due:
        raise _unfit(f"shares for {len(message.shares)} clients; one for each of {len(due)} is due")
    if any(len(words) != SEALED_BYTES for words in sealed.values()):
        raise _unfit(f"a sealed share has {SEALED_BYTES} bytes")
    return sealed


async def _receive_update(client: Client, current: Round, masking: Masking) -> Incoming:
    size = masking.layout.packed_bytes
    # What was asked for may have cost energy, even if it does not arrive.
    masking.paid_up(client.name, size)
    header = (await expected(client.expect, "update")).update
    if header.tensors or header.code_bytes != size:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a masked update of {header.code_bytes} bytes with {len(header.tensors)} tensors; "
            f"{size} bytes without any are due",
        )
    update = Incoming(size, current.federation.ledger.folder)
    most, chunks = most_chunks(size, current.chunk_bytes), 0
    try:
        while not update.complete:
            chunk = await expected(client.expect, "chunk")
            check_size(chunk, current.chunk_bytes)
            await current.on_worker(update.add, chunk)
            client.moved_bytes += len(chunk.data)
            check_count(chunks := chunks + 1, most)
    except BaseException:
        update.close()
        raise
    return update


async def _receive_unmasking(
    client: Client, masking: Masking, request: pb.UnmaskRequest
) -> dict[int, bytes]:
    message = (await expected(client.expect, "unmasking")).unmasking
    masking.paid_up(client.name, message.ByteSize())
    revealed = {share.peer: share.share for share in message.shares}
    asked = {*request.counted, *request.gone}
    if len(revealed) != len(message.shares) or not revealed.keys() <= asked:
        raise _unfit("shares of secrets that were not asked for, or two of one")
    if not all(map(is_share, revealed.values())):
        raise _unfit("what was revealed cannot be shares")
    return revealed


def _unfit(sentence: str) -> ProtocolError:
    return ProtocolError(pb.REFUSAL_REASON_KEYS, sentence)
