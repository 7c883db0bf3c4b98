#!/usr/bin/python3
"""A mock of the Sixtyfour service on the loopback interface: the command."""

import argparse
import asyncio
import ctypes
import os
import resource
import signal
import ssl

from server import Mock
from settings import Settings

BACKLOG = 4096
PR_SET_PDEATHSIG = 1


def arguments():
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0,
                        help="0, the default, lets the system choose")
    parser.add_argument("--port-file", help="file to write the port to")
    parser.add_argument("--tls-cert", help="certificate chain, PEM")
    parser.add_argument("--tls-key", help="key of the certificate, PEM")
    parser.add_argument("--latency", type=float, default=0, metavar="MS",
                        help="milliseconds before each reply")
    parser.add_argument("--task-seconds", type=float, default=0.2,
                        metavar="S", help="run time of a task")
    parser.add_argument("--keys", default="", metavar="KEY,KEY",
                        help="keys that are good; any, if none is given")
    parser.add_argument("--rate-limit", type=int, default=0, metavar="N",
                        help="requests a minute of a key; 0 is no limit")
    parser.add_argument("--workflow-routes", default="both",
                        choices=("rest", "live", "both"),
                        help="which paths of workflows answer")
    parser.add_argument("--die-with-parent", action="store_true",
                        help="end when the process that started this ends")
    parser.add_argument("--verbose", action="store_true",
                        help="write a line per request to stderr")
    return parser.parse_args()


def follow_parent():
    """Ask to be told when the parent ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def allow_many_files():
    """Raise the limit of open files to what is permitted."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tls(options):
    """Return the TLS context, or None for plain HTTP."""
    if not options.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def write_whole(path, text):
    """Write a file so that no reader sees a part of it."""
    with open(path + ".new", "w", encoding="ascii") as out:
        out.write(text)
    os.replace(path + ".new", path)


async def run(options):
    """Serve until a signal says otherwise."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.die_with_parent:
        follow_parent()
    settings = Settings(latency=options.latency,
                        task_seconds=options.task_seconds,
                        rate_limit=options.rate_limit,
                        workflow_routes=options.workflow_routes)
    mock = Mock(settings, filter(None, options.keys.split(",")),
                options.verbose)
    context = tls(options)
    listener = await loop.create_server(mock.server, "127.0.0.1",
                                        options.port, ssl=context,
                                        backlog=BACKLOG)
    port = listener.sockets[0].getsockname()[1]
    if options.port_file:
        write_whole(options.port_file, f"{port}\n")
    print(f"http{'s' if context else ''}://127.0.0.1:{port}", flush=True)
    await stop.wait()
    listener.close()
    mock.server.end(idle_only=False)
    await mock.webhooks.close()


if __name__ == "__main__":
    allow_many_files()
    asyncio.run(run(arguments()))
