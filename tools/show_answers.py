#!/usr/bin/env python3
"""Print questions of a batch file with the answers that `cairn run-batch` gave, to be read.

  tools/show_answers.py INPUT.jsonl RESULTS.jsonl [--count N]
"""
import argparse
import json
import shutil
import textwrap


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def question(body):
    if "messages" in body:
        return body["messages"][-1]["content"]
    return body["prompt"] if isinstance(body["prompt"], str) else "%d token ids" % len(body["prompt"])


def answer(record):
    """The first choice's text and why it ended."""
    if record["error"]:
        return "error: " + record["error"]["message"], None
    choice = record["response"]["body"]["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return text or "", choice["finish_reason"]


def show(mark, text):
    width = min(shutil.get_terminal_size().columns, 110) - 3
    lines = [wrapped for line in text.strip().split("\n") for wrapped in textwrap.wrap(line, width) or [""]]
    for i, line in enumerate(lines or ["(nothing)"]):
        print("%s  %s" % (mark if i == 0 else " ", line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("results")
    parser.add_argument("--count", type=int, default=None)
    args = parser.parse_args()
    results = {record["custom_id"]: record for record in read_lines(args.results)}
    for request in read_lines(args.input)[:args.count]:
        record = results.get(request["custom_id"])
        if record is None:
            continue
        text, reason = answer(record)
        show("Q", question(request["body"]))
        show("A", text + (" [...]" if reason == "length" else ""))
        print()


if __name__ == "__main__":
    main()
