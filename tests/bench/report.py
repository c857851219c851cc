#!/usr/bin/python3
"""The figures of kernel-bench.sh and core-bench beside their targets: one table, JSON and a plot.

    report.py KERNEL_FIGURES CORE_JSON DIRECTORY

KERNEL_FIGURES: lines of "NAME VALUE", of equal names the median counts; CORE_JSON: of Google Benchmark. Written into DIRECTORY are
bench.json, all that the table says, and bench.svg. The exit status is 1 if a target is missed.
"""

import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

RANDOM = ["read-4k-1", "write-4k-1", "read-4k-32", "write-4k-32"]
SEQUENTIAL = ["read-128k-1", "write-128k-1", "read-128k-32", "write-128k-32"]
ONE_SECTOR = ["read-512-1", "write-512-1"]
SIZES = [1, 1000, 65536, 1000000]
OVER_LINEAR = "instructions over dm-linear"


@dataclasses.dataclass
class Row:
    """A figure, lower is better if it has a limit, and what it was made from, if from anything."""

    group: str
    what: str
    figure: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    raw: float | None = None
    linear: float | None = None
    remap: float | None = None

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def met(self) -> bool:
        return (self.at_most is None or self.figure <= self.at_most) and (
            self.at_least is None or self.figure >= self.at_least
        )

    @property
    def verdict(self) -> str:
        return ("met" if self.met else "NOT MET") if self.target else ""


def io_row(kernel: dict, table: str, where: str, load: str, at_most: float | None) -> Row:
    """Nanoseconds are instructions, by the clock that counts them."""
    plain = "in-order" if where == "in-order" else "on" if where == "on" else "anywhere"
    raw = kernel[f"raw/0/{plain}/{load}"]
    linear = kernel[f"linear/0/{plain}/{load}"]
    remap = kernel[f"remap/{table}/{where}/{load}"]
    return Row("an I/O", f"{table} {where} {load}", remap - linear, OVER_LINEAR, at_most,
               raw=raw, linear=linear, remap=remap)


def io_rows(kernel: dict) -> Iterator[Row]:
    for load in RANDOM:
        yield io_row(kernel, "0", "anywhere", load, -40)
    for load in SEQUENTIAL:
        yield io_row(kernel, "0", "in-order", load, -40)
    for spread in ["clustered", "scattered"]:
        for size in SIZES:
            table = f"{size}-{spread}"
            for load in RANDOM:
                yield io_row(kernel, table, "apart", load, 40)
            for load in RANDOM:
                yield io_row(kernel, table, "beside", load, 250)
            for load in ONE_SECTOR:
                yield io_row(kernel, table, "on", load, 350)


def scaling_rows(kernel: dict) -> Iterator[Row]:
    for size in [0, 65536]:
        for jobs in [1, 2, 4]:
            yield Row("several jobs", f"{size} records, {jobs} jobs",
                      kernel[f"scaling/{size}/{jobs}"], "throughput, dm-linear is 1",
                      at_least=0.98)


def failure_rows(kernel: dict) -> Iterator[Row]:
    for direction in ["write", "read"]:
        for load in ["4k-1", "1m-1", "1m-2", "1m-40"]:
            name = f"failure/{direction}-{load}"
            yield Row("under failure: size and bad blocks", f"{direction} {load}",
                      kernel[f"{name}/failing"], "commands of main that fail", kernel[f"{name}/most"])
            yield Row("under failure: size and bad blocks", f"{direction} {load}",
                      kernel[f"{name}/good"], "commands of main that do not")


def relocation_rows(kernel: dict) -> Iterator[Row]:
    # A write of data, and one of the journal to each replica, which a batch shares. These are read
    # back, and so are both superblocks. Alone, a good block is copied and rewritten before.
    kinds = [("others", "while others write", 3, 5), ("alone", "alone", None, None), ("32", "32 at a time", 1.5, 1.5)]
    for kind, text, writes, reads in kinds:
        name = f"relocation/{kind}"
        group = f"relocation, {text}"
        yield Row(group, "writes to the spare", kernel[f"{name}/spare-writes"], "requests", writes)
        yield Row(group, "reads of the spare", kernel[f"{name}/spare-reads"], "requests", reads)
        if kind != "others":
            yield Row(group, "writes to main", kernel[f"{name}/main-writes"], "requests")
            yield Row(group, "reads of main", kernel[f"{name}/main-reads"], "requests")
        yield Row(group, "relocations a second", 1e9 / kernel[f"{name}/time"],
                  "at 1e9 instructions a second")


def checkpoint_rows(kernel: dict) -> Iterator[Row]:
    group = "checkpoint of 1000000 records"
    yield Row(group, "takes", kernel["checkpoint/seconds"], "s")
    for what, most in [("p50", None), ("p99", None), ("longest", 2)]:
        during = kernel[f"checkpoint/during/{what}"]
        without = kernel[f"checkpoint/without/{what}"]
        yield Row(group, f"other I/O, {what}", during / without,
                  f"times the {without:.0f} us without it", most)


def table_rows(kernel: dict, core: dict) -> Iterator[Row]:
    yield Row("activation", "0", kernel["activation/0"], "s")
    for spread in ["clustered", "scattered"]:
        for size in SIZES:
            table = f"{size}-{spread}"
            yield Row("activation", table, kernel[f"activation/{table}"], "s",
                      2 if size == 1000000 else None)
    for spread in ["clustered", "scattered"]:
        yield Row("memory of a record", f"1000000-{spread}, in the kernel",
                  kernel[f"memory/1000000-{spread}"] / 1000000, "bytes", 48)
    yield Row("memory of a record", "on the disk, each copy", core["table_on_disk/iterations:1"]["bytes"],
              "bytes", 33)


def core_rows(core: dict) -> Iterator[Row]:
    def time(name: str) -> float:
        return core[name]["cpu_time"]

    group = "the core, native"
    for name, most in [("lookup_scattered", 100), ("lookup_hits_scattered", None),
                       ("lookup_hits_clustered", None), ("lookup_misses_clustered", None),
                       ("lookup_in_regions_without_records", 5)]:
        yield Row(group, name, time(name), "ns", most)
    for spread in ["scattered", "clustered"]:
        yield Row(group, f"insert_{spread}", time(f"change/insert_{spread}") / 1000, "us", 20)
        yield Row(group, f"remove_{spread}", time(f"change/remove_{spread}") / 1000, "us")
    for name in ["insert_a_full_block", "encode_a_commit"]:
        yield Row(group, name, time(name) / 1000, "us")
    for size, most in [(1000, None), (1000000, 200), (4000000, None)]:
        yield Row(group, f"load of {size} records", time(f"load/{size}"), "ms", most)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_table(rows: list[Row]) -> None:
    columns: list[tuple[str, Callable[[Row], str], str]] = [
        ("", lambda r: r.what, "<"),
        ("raw", lambda r: number(r.raw), ">"),
        ("dm-linear", lambda r: number(r.linear), ">"),
        ("remap", lambda r: number(r.remap), ">"),
        ("figure", lambda r: number(r.figure), ">"),
        ("target", lambda r: r.target, ">"),
        ("", lambda r: r.verdict, "<"),
        ("unit", lambda r: r.unit, "<"),
    ]
    widths = [max([len(head)] + [len(text(r)) for r in rows]) for head, text, _ in columns]

    def line(cells: list[str]) -> str:
        return "  ".join(f"{cell:{align}{width}}" for cell, width, (_, _, align)
                         in zip(cells, widths, columns)).rstrip()

    print(line([head for head, _, _ in columns]))
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            print(f"--- {group}")
        print(line([text(row) for _, text, _ in columns]))
    missed = sum(not r.met for r in rows)
    print(f"{sum(bool(r.target) for r in rows)} targets, {missed} missed")


def write_json(rows: list[Row], path: pathlib.Path) -> None:
    path.write_text(json.dumps({
        "version": 1,
        "rows": [dataclasses.asdict(r) | {"met": r.met if r.target else None} for r in rows],
    }, indent=1) + "\n")


def plot(rows: list[Row], path: pathlib.Path) -> None:
    """Instructions over dm-linear, the depths beside one another, with their limits."""
    rows = [r for r in rows if r.unit == OVER_LINEAR]
    names = list(dict.fromkeys(r.what.rsplit(" ", 1)[0] for r in rows))
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(names) + 1.5))
    for load in RANDOM + SEQUENTIAL + ONE_SECTOR:
        mine = [r for r in rows if r.what.endswith(" " + load)]
        axes.plot([r.figure for r in mine],
                  [names.index(r.what.rsplit(" ", 1)[0]) for r in mine],
                  "o", label=load, alpha=0.8)
    limits = {r.what.rsplit(" ", 1)[0]: r.at_most for r in rows}
    axes.plot([limits[n] for n in names], range(len(names)), "k|", markersize=14, label="target")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("instructions of an I/O, over those of dm-linear")
    axes.set_title("records, where the I/O is")
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, bbox_inches="tight")


def main(kernel_path: str, core_path: str, directory: str) -> int:
    values: dict[str, list[float]] = {}
    for line in pathlib.Path(kernel_path).read_text().splitlines():
        name, value = line.rsplit(" ", 1)
        values.setdefault(name, []).append(float(value))
    kernel = {name: statistics.median(of) for name, of in values.items()}
    benchmarks = json.loads(pathlib.Path(core_path).read_text())["benchmarks"]
    core = {b["name"]: b for b in benchmarks}
    rows = [*io_rows(kernel), *scaling_rows(kernel), *relocation_rows(kernel),
            *failure_rows(kernel),
            *checkpoint_rows(kernel), *table_rows(kernel, core), *core_rows(core)]
    print_table(rows)
    write_json(rows, pathlib.Path(directory) / "bench.json")
    plot(rows, pathlib.Path(directory) / "bench.svg")
    return 0 if all(r.met for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
