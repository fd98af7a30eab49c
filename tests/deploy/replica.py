"""A stand-in for a replica behind the load balancer.

It prints its port, and then a line for each request of a client. It responds with the request as JSON, which shows what
the load balancer changed. The first word of a body may say how to fail: "unavailable" is a response with 503,
"close" closes the connection without a response, and "die" kills the process.
"""

from __future__ import annotations

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Replica(ThreadingHTTPServer):
    """The server, which accepts many connections at once."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing if the load balancer closes a connection."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Buffer the output, so that a response is sent whole or not at all, wherever the process is killed.
    wbufsize = -1

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        word = body[:11].strip()
        # The health check of the load balancer is the only request without a client.
        if "x-forwarded-for" in self.headers:
            print(self.command, self.path, word, flush=True)
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "close":
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = {"method": self.command, "path": self.path, "headers": headers, "body": body}
        content = json.dumps(received).encode()
        self.send_response(503 if word == "unavailable" else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_OPTIONS = do_PUT = do_DELETE = respond  # noqa: N815 (http.server's names)

    def log_message(self, *_: object) -> None:
        """Print nothing but the lines above."""


if __name__ == "__main__":
    server = Replica(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
