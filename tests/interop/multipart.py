"""Takes an answer with several ranges apart, with Python's own parser of MIME.

    multipart.py HEAD BODY FILE FIRST-LAST...

HEAD and BODY are the answer's, FILE is what was served. Fails unless the parts are these ranges
of it, in this order, and nothing else.
"""

import email.parser
import email.policy
import sys

head, body, path, *wanted = sys.argv[1:]
with open(head, "rb") as file:
    # What is left of the head is the last one, without its first line.
    lines = file.read().replace(b"\r\n", b"\n").strip().split(b"\n\n")[-1].split(b"\n")[1:]
with open(body, "rb") as file:
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + file.read()
message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
with open(path, "rb") as file:
    data = file.read()

assert message.get_content_type() == "multipart/byteranges", message.get_content_type()
assert not message.defects, message.defects
parts = list(message.iter_parts())
assert len(parts) == len(wanted), f"{len(parts)} parts instead of {len(wanted)}"
for part, span in zip(parts, wanted):
    first, last = map(int, span.split("-"))
    said = part["content-range"]
    assert said == f"bytes {first}-{last}/{len(data)}", said
    text = part.get_payload(decode=True)
    assert text == data[first : last + 1], f"{span}: other bytes"
