"""Compares what became of each image in the program (FILE.samples.csv) and in suite.py (--csv), attack by attack.

    python benches/autoattack/compare.py runs/fashion_mnist_iad1/evaluation-first256-autoattack.samples.csv plain.csv
"""

import csv
import sys


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


ours, plain = map(read, sys.argv[1:3])
assert [row["index"] for row in ours] == [row["index"] for row in plain], "the tables are of different images"
differing = set()
for column in [name for name in plain[0] if name in ours[0] and name not in ("index", "label")]:
    differ = [(row, other) for row, other in zip(ours, plain) if row[column] != other[column]]
    print(f"{column}: {len(ours) - len(differ)} of {len(ours)} images equal")
    for row, other in differ:
        print(f"  image {row['index']}: {row[column]} here, {other[column]} in plain PyTorch; smallest margin {other['margin']}")
        differing.add(row["index"])
final = [name for name in plain[0] if name in ours[0] and name not in ("index", "label", "prediction")]
lost = lambda row: any(row[name].startswith("fell") for name in final)
changed = [row["index"] for row, other in zip(ours, plain) if lost(row) != lost(other)]
print(f"lost to any attack: {sum(map(lost, ours))} here, {sum(map(lost, plain))} in plain PyTorch; {len(changed)} differ {changed}")
