"""Bytes that are no request, or one that nobody should send, and what comes back for them."""

import socket

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body, path=b"/v1/completions", headers=b""):
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers + (
        b"Content-Length: %d\r\n\r\n" % len(body)) + body


MALFORMED = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\nHost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 100, bytes(range(256)), b"DELETE /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    post(b""), post(b"null"), post(b"[]"), post(b"\"x\""), post(b"{"), post(b"{}"), post(b"[" * 50000), post(b'{"a":' * 20000), post(b'{"model":1}'),
    post(b"\xff\xfe\x00"), post(b'{"model":"\xff"}'), post(b'{"model":"\\ud800","prompt":"\\udfff"}'), post(b'{"prompt":1e999}'), post(b'{"n":' + b"9" * 5000 + b"}"),
    post(b'{"model":"m","model":"m"}'), post(b'{"prompt":"' + b"x" * 150000 + b'"}'), post(b'{"prompt":"a"}', headers=b"Content-Encoding: gzip\r\n"),
    post(b'{"messages":[{}]}', b"/v1/chat/completions"), post(b'{"messages":{}}', b"/v1/chat/completions"), post(b"{}", b"/v1/embeddings"),
    post(b'{"tokens":[1e3,-1,99999999999]}', b"/detokenize"), post(b'{"prompt":7}', b"/tokenize"),
]


def exchange(server, data, pieces=1):
    """What comes back, the connection's writing side closed behind the data; b'' where it was closed without a word."""
    with socket.create_connection((server.host, server.port), 30) as connection:
        connection.settimeout(30)
        got = b""
        try:
            step = max(1, -(-len(data) // pieces))
            for begin in range(0, len(data), step):
                connection.sendall(data[begin : begin + step])
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                got += piece
        except ConnectionError:
            pass  # refused early: it need not read all of it
        return got


def statuses(answer):
    return [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
