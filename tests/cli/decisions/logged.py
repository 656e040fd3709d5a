"""Numbers of the records that a command lists."""

import re


def seqs(output):
    return [int(found) for found in re.findall(r"^ +(\d+)  20", output, re.MULTILINE)]
