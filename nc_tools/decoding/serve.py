"""The main function of a decoding process: it reads requests from standard input and writes pixels to standard output.

A request is one JSON line. The answer is one JSON line, the report, and then the pixels of all files, one after the
other; those of a file that cannot be decoded are black. The process ends when its standard input is closed, also by the
death of its parent.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nc_tools.decoding.image_file import UnreadableImageError, damage_text, decode_file
from nc_tools.decoding.request import DecodingReport, DecodingRequest


def decode_here(request: DecodingRequest, rows: np.ndarray) -> DecodingReport:
    """Decode the files of a request into the rows (B, C, side, side), uint8, in this thread."""
    report = DecodingReport()
    for i, name in enumerate(request.names):
        try:
            rows[i], form = decode_file(
                Path(request.root, name), request.image_size, request.channels, request.interpolation
            )
        except UnreadableImageError as error:
            rows[i] = 0
            report.unreadable[name] = damage_text(error.__cause__)
        else:
            if form:
                report.converted[form] = report.converted.get(form, 0) + 1
    return report


def serve() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin.buffer:
        request = DecodingRequest(**json.loads(line))
        rows = np.empty((len(request.names), request.channels, request.image_size, request.image_size), np.uint8)
        report = decode_here(request, rows)
        answers.write(json.dumps(asdict(report)).encode() + b"\n")
        answers.write(rows.data)
        answers.flush()
