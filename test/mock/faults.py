"""The faults: answers gone wrong, and connections ended in a bad moment."""

import asyncio
import base64
import gzip

from files import EXPIRED
from routes import Reply, Stream, encode, fault_reply, phrase

HTML = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>\n"
PIECE = b"x" * 65536


def spell(reply):
    """Return a reply's headers but for the body's length."""
    lines = [f"HTTP/1.1 {reply.status} {phrase(reply.status)}",
             f"Content-Type: {reply.content_type}",
             *(f"{name}: {value}" for name, value in reply.headers), ""]
    return "\r\n".join(lines).encode()


def with_member(reply, member):
    """Return a reply with raw bytes as its object's first member."""
    rest = encode(reply.body)
    rest = b"," + rest[1:] if rest.startswith(b"{") and rest != b"{}" else b"}"
    return reply._replace(body=b"{" + member + rest)


def deep_nesting(rule, reply, _key):
    """Return a value within so many arrays."""
    depth = rule.get("depth", 100000)
    return with_member(reply, b'"notes":' + b"[" * depth + b"]" * depth)


def wrong_shape(rule, reply, _key):
    """Return JSON that is not what the operation answers."""
    shapes = {"array": [1, 2, 3], "scalar": 42, "null": None, "text": "done",
              "object": {"unexpected": True}}
    return reply._replace(body=shapes[rule.get("shape", "array")])


def redirect(rule, _reply, _key):
    """Return a redirection."""
    return Reply(rule.get("status", 302), b"", headers=(
        ("Location", rule.get("location", "http://127.0.0.1:9/elsewhere")),))


def echo_key(rule, _reply, key):
    """Return an error that repeats the caller's key."""
    status = rule.get("status", 403)
    return Reply(status, fault_reply(
        status, f"The key {key} may not do this (x-api-key: {key})"))


def expired_address(_rule, _reply, _key):
    """Return what a signed address answers after its time."""
    return Reply(403, EXPIRED, content_type="application/xml")


def many_headers(*headers):
    """Return a fault that adds headers."""
    return lambda rule, reply, _key: reply._replace(
        headers=reply.headers + headers)


def member(raw):
    """Return a fault that adds a member to the answer."""
    return lambda rule, reply, _key: with_member(reply, raw)


# Faults that change the reply; it is then sent in good order.
EDITS = {
    "redirect": redirect,
    "echo_key": echo_key,
    "expired_address": expired_address,
    "not_json": lambda rule, reply, _key: reply._replace(
        body=HTML, content_type="text/html"),
    "empty": lambda rule, reply, _key: reply._replace(body=b""),
    "invalid_utf8": member(b'"notes":"caf\xe9 \xff\xfe"'),
    "nul": member(b'"notes":"before\\u0000after"'),
    "bad_surrogate": member(b'"notes":"\\ud83d alone"'),
    "duplicate_keys": member(b'"notes":"first","notes":"second"'),
    "huge_number": member(b'"number":' + b"9" * 200000),
    "deep_nesting": deep_nesting,
    "wrong_shape": wrong_shape,
    "duplicate_reply_headers": many_headers(
        ("Retry-After", "1"), ("Retry-After", "2"),
        ("Content-Type", "text/html"),
        ("X-RateLimit-Remaining", "7"), ("X-RateLimit-Remaining", "none")),
    "huge_headers": many_headers(
        *((f"X-Filler-{number}", "y" * 4000) for number in range(50))),
    "unasked_gzip": lambda rule, reply, _key: reply._replace(
        body=gzip.compress(encode(reply.body)),
        headers=reply.headers + (("Content-Encoding", "gzip"),)),
    "connection_close": many_headers(("Connection", "close")),
}


def edit(rule, reply, key):
    """Return the reply that a rule makes of the good one."""
    status = rule.get("status", reply.status)
    reply = reply._replace(status=status)
    if "status" in rule and status >= 400:
        reply = reply._replace(body=fault_reply(status, "Asked by a rule"))
    for name in ("body", "answer"):
        if name in rule:
            reply = reply._replace(body=rule[name])
    if isinstance(reply.body, dict) and list(reply.body) == ["text"]:
        reply = reply._replace(body=reply.body["text"].encode(),
                               content_type="text/plain")
    if "raw_base64" in rule:
        reply = reply._replace(body=base64.b64decode(rule["raw_base64"]))
    if rule.get("fault") in EDITS:
        reply = EDITS[rule["fault"]](rule, reply, key)
    return reply._replace(
        content_type=rule.get("content_type", reply.content_type),
        headers=reply.headers + tuple(rule.get("headers", {}).items()))


# Faults on the wire: coroutines that write raw bytes and then end the
# connection.  `head` lacks only the header that gives the body's length.

async def cut(_rule, connection, head, body):
    """Announce the whole body, send half of it."""
    if isinstance(body, Stream) and body.length is not None:
        write_sized(connection, head, body.length, b"")
        await pour(connection, body, body.length // 2)
    else:
        body = encode(body)
        write_sized(connection, head, len(body), body[:len(body) // 2])


async def cut_headers(_rule, connection, head, _body):
    """Send half of the headers."""
    connection.transport.write(head[:len(head) // 2])


async def wrong_content_length(_rule, connection, head, body):
    """Announce half of the body, send all of it."""
    write_sized(connection, head, len(body) // 2, body)


async def bad_chunk(_rule, connection, head, body):
    """Send one good chunk, then a size that is none."""
    connection.transport.write(
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body
        + b"\r\nthis is no size\r\n")


async def drip(rule, connection, head, body):
    """Send one byte of the body per interval."""
    write_sized(connection, head, len(body), b"")
    for position in range(len(body)):
        if connection.gone:
            return
        connection.transport.write(body[position:position + 1])
        await asyncio.wait([connection.lost],
                           timeout=rule.get("interval", 0.05))


async def huge(rule, connection, head, _body):
    """Send a JSON text of the given size, as long as the client reads."""
    start, end = b'{"notes":"', b'"}'
    left = rule.get("size_bytes", 64 << 20) - len(start) - len(end)
    write_sized(connection, head, left + len(start) + len(end), start)
    while left > 0 and not connection.gone:
        connection.transport.write(PIECE[:left])
        left -= len(PIECE)
        await connection.drain()
    if not connection.gone:
        connection.transport.write(end)


WIRES = {"cut": cut, "cut_headers": cut_headers, "drip": drip, "huge": huge,
         "bad_chunk": bad_chunk, "wrong_content_length": wrong_content_length}
WHOLE = ("drip", "huge")


async def pour(connection, stream, most=None):
    """Send a stream's pieces, or the first bytes; tell whether all went."""
    chunked = stream.length is None
    for piece in stream.pieces:
        if most is not None:
            piece = piece[:most]
            most -= len(piece)
        if connection.gone or not piece:
            break
        if chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        connection.transport.write(piece)
        await connection.drain()
    if chunked and not connection.gone:
        connection.transport.write(b"0\r\n\r\n")
    return not connection.gone


def write_sized(connection, head, length, body):
    """Write headers with that length, and the body as it is."""
    connection.transport.write(
        head + b"Content-Length: %d\r\n\r\n" % length + body)


async def before_body(rule, connection):
    """End or hold a request whose body has not been read."""
    if rule["fault"] == "hang_before_body":
        await connection.lost
    connection.abort()


async def instead_of_answer(rule, connection):
    """End or hold a request that was accepted and gets no answer."""
    if rule["fault"] == "hang":
        await connection.lost
    elif rule["fault"] == "reset_after_body":
        connection.reset()
    else:
        connection.close()
