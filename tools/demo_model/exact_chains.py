"""Counts held-out problems whose whole chain the model predicts, with the full cache, in one forward pass each.

    python tools/demo_model/exact_chains.py --model models/demo/model.safetensors --problems 200

Greedy decoding of such a problem gives the reference chain, and so the right answer: a lower bound of accuracy that costs a
fraction of decoding.
"""

import argparse
import json

import torch

from evaluate import load, wilson
from task import SHAPES, problem_for


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--lengths", default=",".join(map(str, SHAPES)))
    p.add_argument("--problems", type=int, default=200)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.model)
    for length in map(int, args.lengths.split(",")):
        rows, right = max(1, 4000 // length), 0
        for at in range(0, args.problems, rows):
            problems = [problem_for(0, "heldout", length, i) for i in range(at, min(at + rows, args.problems))]
            ids = torch.tensor([p.ids for p in problems])
            start = problems[0].prompt_length
            hidden = model.hidden(ids, torch.arange(ids.shape[1]).expand(ids.shape))[:, start - 1:-1]
            right += int((model.lm_head(hidden).argmax(-1) == ids[:, start:]).all(-1).sum())
        print(json.dumps({"length": length, "tokens": ids.shape[1], "policy": "full", "teacher_forced": True,
                          "problems": args.problems, "exact_chains": right, "share": right / args.problems,
                          "interval": wilson(right, args.problems)}), flush=True)


if __name__ == "__main__":
    main()
