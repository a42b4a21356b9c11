"""A DNS server for tests: dns.py ADDRESS NAME=ADDRESS… knows these names, and that there are no others.

Answers A queries on UDP port 53 of ADDRESS; prints each question, and "ready" first.
"""
import socket
import struct
import sys

known = dict(pair.split("=") for pair in sys.argv[2:])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = server.recvfrom(1500)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    name = ".".join(labels).lower()
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    address = known.get(name)
    found = bool(address) and kind == 1
    print(name, flush=True)
    code = 0x8180 if address else 0x8183  # no error, or no such name
    answer = query[:2] + struct.pack(">HHHHH", code, 1, int(found), 0, 0) + query[12 : at + 5]
    if found:
        answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address)
    server.sendto(answer, client)
