#!/usr/bin/env python3
"""How much of the core the tests run: coverage-report.py REASONS EXPORT.json EXPORT.lcov

The two exports are those of llvm-cov. Prints lines and branches of each file, and every place that
no test reaches, with the reason that REASONS gives for it. Fails where too little is covered, a
place has no reason, or a reason no place.
"""
import json
import os
import re
import sys
from collections import Counter, defaultdict, namedtuple

CORE = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "kernel/core/")
WANTED_LINES = 98
WANTED_BRANCHES = 95

# What names a place: neither moves when lines do. WHAT is the source, and what it never does.
Key = namedtuple("Key", "file function what")


class Sources:
    def __init__(self):
        self.lines = {}

    def line(self, path, number):
        if path not in self.lines:
            with open(path, encoding="utf-8") as file:
                self.lines[path] = file.read().split("\n")
        return self.lines[path][number - 1]

    def text(self, path, region):
        """What is in a region, on one line."""
        first, from_column, last, to_column = region
        parts = [self.line(path, n) for n in range(first, last + 1)]
        parts[-1] = parts[-1][: to_column - 1]
        parts[0] = parts[0][from_column - 1 :]
        return " ".join(part.strip() for part in parts)


def name(path):
    return os.path.basename(path)


def read_functions(export, sources):
    """Functions by file and line; branches by place, with how often each way was taken.

    A function of a header is in many objects, with counts of its own in each: they are summed. A
    branch in a macro counts where the macro is used.
    """
    functions = defaultdict(dict)
    branches = defaultdict(lambda: [0, 0])
    for function in export["functions"]:
        files, regions = function["filenames"], function["regions"]
        if not files[regions[0][5]].startswith(CORE):
            continue
        who = function["name"].rsplit(":", 1)[-1]
        for number in range(regions[0][0], regions[0][2] + 1):
            functions[files[regions[0][5]]][number] = who
        expanded_by = {region[6]: region for region in regions if region[7] == 1}
        for branch in function["branches"]:
            at, where = branch[6], [tuple(branch[:4])]
            text = sources.text(files[at], where[0])
            # A constant is no branch: `while (0)`.
            if text in ("0", "1", "true", "false"):
                continue
            while at in expanded_by:
                use = expanded_by[at]
                at = use[5]
                where.append(tuple(use[:4]))
            path, place = files[at], where[-1]
            if len(where) > 1:
                text += f" in {sources.text(path, place)}"
            counts = branches[(path, place[0], tuple(where), text)]
            counts[0] += branch[4]
            counts[1] += branch[5]
    return functions, branches


def read_lines(lcov, functions):
    """How often each line of a function ran, by file; what is elsewhere is a macro's definition."""
    counts, path = defaultdict(dict), None
    with open(lcov, encoding="utf-8") as file:
        for line in file:
            word, _, rest = line.strip().partition(":")
            if word == "SF":
                path = rest
            elif word == "DA":
                number, count = map(int, rest.split(",")[:2])
                if number in functions[path]:
                    counts[path][number] = count
    return counts


def read_reasons(path):
    """Lines `FILE: FUNCTION: WHAT`, one for each place, and after them, indented, the reason."""
    places, reasons, keys = Counter(), {}, []
    told = True
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.strip() or line.startswith("#"):
                continue
            if line[0].isspace():
                for key in keys:
                    reasons[key] = f"{reasons.get(key, '')} {line.strip()}".strip()
                told = True
                continue
            if told:
                keys, told = [], False
            key = Key(*line.strip().split(": ", 2))
            places[key] += 1
            keys.append(key)
    missing = [key for key in places if key not in reasons]
    if missing:
        sys.exit(f"{path}: no reason behind {': '.join(missing[0])}")
    return places, reasons


def percent(covered, total):
    return 100 * covered / total if total else 100


def row(title, lines, branches):
    cells = [f"{c:5} of {t:5} {percent(c, t):6.2f} %" for c, t in (lines, branches)]
    print(f"{title:24} {cells[0]}   {cells[1]}")


def print_table(lines, branches):
    """Returns the percentages of all."""
    covered = defaultdict(lambda: [[0, 0], [0, 0]])
    for path, counts in lines.items():
        covered[path][0] = [sum(map(bool, counts.values())), len(counts)]
    for (path, *_), counts in branches.items():
        covered[path][1][0] += sum(map(bool, counts))
        covered[path][1][1] += len(counts)
    print(f"{'':24} {'lines':>14} {'':10} {'branches':>16}")
    for path in sorted(covered):
        row(name(path), *covered[path])
    total = [[sum(c[kind][i] for c in covered.values()) for i in (0, 1)] for kind in (0, 1)]
    row("all", *total)
    return [percent(*kind) for kind in total]


def uncovered(lines, branches, functions, sources):
    """(path, line, key) of each place, in order."""
    places = []

    def add(path, number, what):
        key = Key(name(path), functions[path][number], what)
        places.append((path, number, key))

    for path, counts in lines.items():
        for number, count in counts.items():
            text = sources.line(path, number).strip()
            # A brace alone says nothing that the lines within do not.
            if not count and re.search(r"\w", text):
                add(path, number, f"`{text}` never runs")
    for (path, number, _, text), counts in branches.items():
        for count, way in zip(counts, ("true", "false")):
            if not count:
                add(path, number, f"`{text}` never {way}")
    return sorted(places)


def print_uncovered(places, known, reasons):
    """True: each has its reason, and each reason a place. A reason that several share comes once."""
    left, unknown, said = Counter(known), 0, None
    print(f"\nNot covered: {len(places)}")
    for _, number, key in places:
        reason = reasons[key] if left[key] else "NO REASON GIVEN"
        if said not in (None, reason):
            print(f"    {said}")
        print(f"{key.file}:{number} {key.function}: {key.what}")
        unknown += not left[key]
        left[key] -= bool(left[key])
        said = reason
    if said:
        print(f"    {said}")
    stale = list(left.elements())
    for key in stale:
        print(f"A reason for what is covered, or gone: {': '.join(key)}")
    return not unknown and not stale


def main():
    reasons_path, export_path, lcov_path = sys.argv[1:]
    sources = Sources()
    with open(export_path, encoding="utf-8") as file:
        functions, branches = read_functions(json.load(file)["data"][0], sources)
    lines = read_lines(lcov_path, functions)
    of_lines, of_branches = print_table(lines, branches)
    met = of_lines >= WANTED_LINES and of_branches >= WANTED_BRANCHES
    print(f"{WANTED_LINES} % of lines and {WANTED_BRANCHES} % of branches: "
          f"{'met' if met else 'NOT MET'}")
    explained = print_uncovered(uncovered(lines, branches, functions, sources),
                                *read_reasons(reasons_path))
    sys.exit(0 if met and explained else 1)


main()
