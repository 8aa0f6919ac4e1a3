# Every command and flag of the protocol through libnbd, and the errors a client must get. Arguments: socket, export.
import errno
import sys

import nbd

socket, export = sys.argv[1], sys.argv[2]
LONG = 1 << 20


def client(name=export, structured=True, strict=True):
    h = nbd.NBD()
    h.set_export_name(name)
    h.set_request_structured_replies(structured)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    if not strict:
        # Let requests through that libnbd would refuse by itself: the server must.
        h.set_strict_mode(0)
    h.connect_unix(socket)
    return h


def expect(number, f, *args):
    try:
        f(*args)
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, error.string, number)
        return
    raise AssertionError(("no error", number, args))


def flags():
    h = client()
    assert h.is_read_only() is False
    for can in (h.can_flush, h.can_fua, h.can_trim, h.can_zero, h.can_fast_zero, h.can_df, h.can_cache, h.can_multi_conn):
        assert can(), can
    assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    assert h.get_structured_replies_negotiated()
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
    h.shutdown()


def reads_and_writes(structured):
    h = client(structured=structured)
    body = bytes(i * 7 % 251 for i in range(200_001))
    for offset in (0, 1, 511, 4095, 65_535, 1_000_003):
        h.pwrite(body, offset)
        assert h.pread(len(body), offset) == body
    h.pwrite(b"durable", 3 * LONG + 5, nbd.CMD_FLAG_FUA)
    h.flush()
    assert h.pread(7, 3 * LONG + 5) == b"durable"
    h.cache(65_536, 0)
    h.shutdown()


def structured_reads():
    h = client()
    h.pwrite(b"\x5a" * 100_000, 0)
    seen = bytearray(100_000)

    def chunk(data, offset, status, error):
        if status == nbd.READ_DATA:
            seen[offset : offset + len(data)] = data

    h.pread_structured(100_000, 0, chunk)
    assert bytes(seen) == b"\x5a" * 100_000
    h.pread_structured(100_000, 0, chunk, nbd.CMD_FLAG_DF)
    h.shutdown()


def status_of(h, length, offset, flags=0):
    found = []

    def extent(context, at, entries, error):
        assert context == nbd.CONTEXT_BASE_ALLOCATION
        found.extend(zip(entries[0::2], entries[1::2]))

    h.block_status(length, offset, extent, flags)
    return found


def zeroes_and_holes():
    h = client()
    h.pwrite(b"\xee" * (4 * LONG), 0)
    assert all(flags == 0 for _, flags in status_of(h, 4 * LONG, 0))
    for flag in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA):
        h.pwrite(b"\xee" * LONG, LONG)
        h.zero(LONG - 3, LONG + 1, flag)
        assert h.pread(LONG, LONG) == b"\xee" + bytes(LONG - 3) + b"\xee\xee"
    try:
        h.zero(65_536, LONG, nbd.CMD_FLAG_FAST_ZERO)
    except nbd.Error as error:
        assert error.errnum == errno.ENOTSUP, error.string
    h.pwrite(b"\xdd" * LONG, 2 * LONG)
    h.trim(LONG, 2 * LONG)
    body = h.pread(LONG, 2 * LONG)
    # Trimmed bytes may be old or zero, and are the same ever after.
    assert set(body) <= {0, 0xDD}
    assert h.pread(LONG, 2 * LONG) == body
    h.trim(100, 2 * LONG + 50, nbd.CMD_FLAG_FUA)
    assert h.pread(LONG, 3 * LONG) == b"\xee" * LONG, "neighbours of a trim"
    one = status_of(h, 4 * LONG, 0, nbd.CMD_FLAG_REQ_ONE)
    assert len(one) == 1 and one[0][0] <= 4 * LONG, one
    assert sum(length for length, _ in status_of(h, 4 * LONG, 0)) > 0
    h.shutdown()


def connections():
    clients = [client() for _ in range(4)]
    for i, h in enumerate(clients):
        h.pwrite(bytes([i + 1]) * 10_000, i * 10_000)
    # A flush on one covers the writes of all; a read on one sees the writes of all.
    clients[0].flush()
    for h in clients:
        for i in range(4):
            assert h.pread(10_000, i * 10_000) == bytes([i + 1]) * 10_000
    for h in clients:
        h.shutdown()


def pipeline():
    h = client()
    buffers = [nbd.Buffer.from_bytearray(bytearray([i % 256]) * 3000) for i in range(256)]
    cookies = [h.aio_pwrite(b, i * 3000) for i, b in enumerate(buffers)]
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    into = [nbd.Buffer(3000) for _ in range(256)]
    cookies = [h.aio_pread(b, i * 3000) for i, b in enumerate(into)]
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    for i, b in enumerate(into):
        assert bytes(b.to_bytearray()) == bytes([i % 256]) * 3000, i
    h.shutdown()


def errors():
    h = client(strict=False)
    size = h.get_size()
    before = h.pread(512, size - 512)
    expect(errno.EINVAL, h.pread, 512, size)
    expect(errno.EINVAL, h.pread, 1024, size - 512)
    expect(errno.ENOSPC, h.pwrite, b"x" * 1024, size - 512)
    expect(errno.ENOSPC, h.pwrite, b"x", 1 << 62)
    # Refused only after the last byte of it was taken: libnbd hears nothing while it sends.
    expect(errno.ENOSPC, h.pwrite, b"x" * (16 << 20), size - 512)
    expect(errno.EINVAL, h.pwrite, b"x" * (33 << 20), 0)
    expect(errno.ENOSPC, h.zero, 1024, size - 512)
    expect(errno.EINVAL, h.trim, 1024, size - 512)
    expect(errno.EINVAL, h.cache, 1024, size - 512)
    assert h.pread(512, size - 512) == before, "a refused write changed something"
    h.pwrite(b"still here", 0)
    h.shutdown()
    missing = nbd.NBD()
    missing.set_export_name("no such export")
    expect(errno.ENOENT, missing.connect_unix, socket)


flags()
for structured in (True, False):
    reads_and_writes(structured)
structured_reads()
zeroes_and_holes()
connections()
pipeline()
errors()
print("done")
