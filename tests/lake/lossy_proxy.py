"""An HTTP proxy that forwards every request and drops the replies to some: a fault of the network.

`lossy_proxy.py PORT PATTERN` forwards to the server at PORT of this machine. Of each path that matches the
regular expression PATTERN it drops the reply to the first conditional PUT, after the server has carried it
out. It prints its own port, then one line per dropped reply.
"""

from __future__ import annotations

import http.client
import re
import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

_PER_CONNECTION = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


class LossyProxy(BaseHTTPRequestHandler):
    """Forwards one request after the other of a connection, and closes it instead of a dropped reply."""

    protocol_version = "HTTP/1.1"
    upstream_port = 0
    pattern = re.compile("")
    dropped: ClassVar[set[str]] = set()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream_port)
        upstream.request(self.command, self.path, body, dict(self.headers))
        reply = upstream.getresponse()
        content = reply.read()
        upstream.close()
        conditional = self.command == "PUT" and "If-None-Match" in self.headers
        if conditional and self.pattern.search(self.path) and self.path not in self.dropped:
            self.dropped.add(self.path)
            print(f"{reply.status} {self.path}", flush=True)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in _PER_CONNECTION:
                self.send_header(name, value)
        length = reply.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # The client may cancel a request that it does not need any more.
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 -- the names that the class calls

    def log_message(self, format: str, *args: object) -> None:
        """Standard error is for failures of the proxy alone."""


if __name__ == "__main__":
    LossyProxy.upstream_port, LossyProxy.pattern = int(sys.argv[1]), re.compile(sys.argv[2])
    with ThreadingHTTPServer(("127.0.0.1", 0), LossyProxy) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
