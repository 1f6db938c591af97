"""A name server (UDP and TCP) and a web server of one file, for tests/names, which has a network
of its own.

    names.py ADDRESS PORT NAME=IP,IP...     prints `ready`, then a line for each request it gets
"""

import http.server
import ipaddress
import socketserver
import struct
import sys
import threading

address, port = sys.argv[1], int(sys.argv[2])
assert ipaddress.ip_address(address).is_loopback
zone = {name: [ipaddress.ip_address(ip) for ip in ips.split(",")]
        for name, ips in (argument.split("=") for argument in sys.argv[3:])}
UDP_BYTES_MAX = 512  # RFC 1035, section 4.2.1


def answer(query, carrier):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    name = ".".join(labels).lower()
    kind = struct.unpack("!H", query[at + 1:at + 3])[0]
    records = b"".join(
        struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(ip.packed)) + ip.packed
        for ip in zone.get(name, []) if kind == {4: 1, 6: 28}[ip.version])
    count = records.count(b"\xc0\x0c")
    flags = 0x8180 if name in zone else 0x8183
    if carrier == "udp" and at + 5 + len(records) > UDP_BYTES_MAX:
        flags, records, count = flags | 0x0200, b"", 0
    print("name", carrier, name, flush=True)
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + query[12:at + 5] + records


class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        query, carrier = self.request
        carrier.sendto(answer(query, "udp"), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        while len(head := self.rfile.read(2)) == 2:
            reply = answer(self.rfile.read(struct.unpack("!H", head)[0]), "tcp")
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"apiVersion": "v1", "kind": "PodList", "items": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print("page", self.headers["Host"], flush=True)

    def log_message(self, *_):
        pass


socketserver.ThreadingTCPServer.allow_reuse_address = True
servers = [
    socketserver.ThreadingUDPServer((address, port), Udp),
    socketserver.ThreadingTCPServer((address, port), Tcp),
    http.server.ThreadingHTTPServer(("", 8053), Web),
]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
