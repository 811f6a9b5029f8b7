"""Searches each subject for any of the words with `re`: a round for each line on standard input.

Arguments: file of words, file of subjects, one a line. Prints nanoseconds of processor time and hits of a round.
"""

import re
import sys
import time


def lines(name):
    with open(name, encoding="utf-8") as file:
        return file.read().splitlines()


words, subjects = lines(sys.argv[1]), lines(sys.argv[2])
search = re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE).search

for _ in sys.stdin:
    hits = 0
    start = time.process_time_ns()
    for subject in subjects:
        if search(subject):
            hits += 1
    print(time.process_time_ns() - start, hits, flush=True)
