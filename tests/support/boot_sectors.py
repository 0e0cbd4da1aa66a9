# SPDX-License-Identifier: Apache-2.0

"""A guest in 512 bytes, which reads its own disk again and again."""

import struct

SECTOR = 512

#: Bytes at the beginning of a sector that the guest shows.
SHOWN = 16

_PARTITIONS = 446

# The BIOS loads it at 0x7c00; what it reads goes behind.
_CODE = bytes.fromhex(
    'fa 31 c0 8e d8 8e c0 8e d0'  # cli; ds = es = ss = 0
    'bc 00 7c fc fb'  # sp = 0x7c00; cld; sti
    '88 d3'  # bl = dl, the disk it is started from
    # Again: read, by the extensions of INT 13h.
    'be 4d 7c b4 42 88 da cd 13'  # si = the request; ah = 0x42; int 0x13
    '72 1e'  # jc failed
    'be 00 7e b9 10 00'  # si = 0x7e00; cx = SHOWN
    # Each byte, as two digits.
    'ac 50 c0 e8 04 e8 17 00'  # al = *si++; call nibble(al >> 4)
    '58 24 0f e8 11 00'  # call nibble(al & 15)
    'e2 f0'  # loop
    # Done: end the line, and wait for the clock, 18 times a second.
    'b0 0a e8 12 00 f4 eb d7'  # call put(10); hlt; jmp again
    # Failed.
    'b0 21 e8 0a 00 eb f1'  # call put('!'); jmp done
    # Nibble.
    '04 30 3c 3a 72 02 04 27'  # al += '0'; if above '9': al += 39
    # Put, on the first serial port.
    'ba f8 03 ee c3'  # out(0x3f8, al); ret
)


def reading(offset: int) -> bytes:
    """Give a boot sector that reads a sector, and shows how it begins.

    It writes a line of hexadecimal digits for each reading to the first
    serial port; where that failed, an exclamation mark.

    :param offset: of the sector on the disk, in bytes
    """
    number, within = divmod(offset, SECTOR)
    if within:
        raise ValueError(f'{offset} is not where a sector begins')
    # Of 16 bytes: one sector, to 0:0x7e00.
    request = struct.pack('<BBHHHQ', 16, 0, 1, 0x7E00, 0, number)
    # One of Linux, as Glance and Nova refuse a disk that has none.
    partition = struct.pack('<B3sB3sII', 0, b'', 0x83, b'', 1, number)
    code = (_CODE + request).ljust(_PARTITIONS, b'\0')
    return (code + partition).ljust(SECTOR - 2, b'\0') + b'\x55\xaa'
