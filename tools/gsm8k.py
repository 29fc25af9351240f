#!/usr/bin/env python3
"""GSM8K for `cairn run-batch`: make the batch file, then score its results.

  tools/gsm8k.py make  DATA.jsonl [--questions 20] [--max-tokens 400] > requests.jsonl
  tools/gsm8k.py score DATA.jsonl RESULTS.jsonl [--report report.json]

DATA is the published test set (one {"question", "answer"} per line, the number after "####"). An answer counts as right
when its number equals the published one exactly: the number inside the last \\boxed{...}, or without one the last number
of the text.
"""
import argparse
import decimal
import json
import re
import sys

INSTRUCTION = "\nThink step by step and put the final number in \\boxed{}."
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")  # a minus after a digit or a parenthesis is a subtraction


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def numbers(text):
    return [decimal.Decimal(n.replace(",", "")) for n in NUMBER.findall(text)]


def boxed(text):
    """What stands inside the last \\boxed{...}, braces balanced; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin = start + len("\\boxed{")
    depth = 1
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None


def final_number(text):
    inside = boxed(text)
    found = numbers(inside) if inside is not None else []
    found = found or numbers(text)
    return found[-1] if found else None


def plain(number):
    """Digits without an exponent: Decimal writes a zero of 70 places as 0E-70."""
    return str(number) if number is None else format(number.normalize(), "f")


def make(args):
    for i, row in enumerate(read_lines(args.data)[:args.questions]):
        body = {"messages": [{"role": "user", "content": row["question"] + INSTRUCTION}],
                "max_tokens": args.max_tokens, "temperature": 0}
        print(json.dumps({"custom_id": "gsm8k-%d" % i, "method": "POST", "url": "/v1/chat/completions", "body": body}))


def score(args):
    data = read_lines(args.data)
    rows = []
    for record in sorted(read_lines(args.results), key=lambda r: int(r["custom_id"].split("-")[1])):
        expected = numbers(data[int(record["custom_id"].split("-")[1])]["answer"].split("####")[1])[0]
        if record["error"]:
            rows.append(dict(id=record["custom_id"], right=False, error=record["error"]["message"]))
            continue
        body = record["response"]["body"]
        choice = body["choices"][0]
        found = final_number(choice["message"]["content"])
        rows.append(dict(id=record["custom_id"], right=found == expected, expected=plain(expected), found=plain(found),
                         finish_reason=choice["finish_reason"], tokens=body["usage"]["completion_tokens"]))
    if not rows:
        sys.exit("%s holds no results" % args.results)
    right = sum(row["right"] for row in rows)
    for row in rows:
        print("%-10s %-5s %s" % (row["id"], "right" if row["right"] else "WRONG",
                                 row.get("error") or "expected %(expected)s, found %(found)s" % row))
    print("%d of %d right (%.0f %%)" % (right, len(rows), 100 * right / len(rows)))
    if args.report:
        with open(args.report, "w", encoding="utf-8") as f:
            json.dump(dict(right=right, questions=len(rows), accuracy=right / len(rows), rows=rows), f, indent=1)
            f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make_parser = commands.add_parser("make")
    make_parser.add_argument("data")
    make_parser.add_argument("--questions", type=int, default=20)
    make_parser.add_argument("--max-tokens", type=int, default=400)
    make_parser.set_defaults(run=make)
    score_parser = commands.add_parser("score")
    score_parser.add_argument("data")
    score_parser.add_argument("results")
    score_parser.add_argument("--report")
    score_parser.set_defaults(run=score)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
