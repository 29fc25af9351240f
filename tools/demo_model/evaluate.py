"""Accuracy of the demo model under compression, decoded in PyTorch on held-out problems.

    python tools/demo_model/evaluate.py --checkpoint build/demo_model/checkpoint.pt --lengths 1000 --policies full,rkv

Kept shares are of the tokens of a problem (prompt, chain, answer); the budget is that share, window included. Appends one
JSON line per (length, policy, share) to --output, with the exact answers among the problems, their 95 % Wilson interval,
and the chains that were right to the last token.
"""

import argparse
import json
import math
import time

import torch

from decode import generate
from model import Config, Model
from policies import POLICIES, Settings
from task import SHAPES, problem_for, token_count, token_id

ANSWER = token_id("</think>")


def load(path):
    model = Model(Config())
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file
        model.load_state_dict({k.removeprefix("model."): v.float() for k, v in load_file(path).items()})
    else:
        weights = torch.load(path, map_location="cpu")["model"]
        model.load_state_dict({k: v.bfloat16().float() for k, v in weights.items()})   # as exported
    return model.eval()


def wilson(right, n, z=1.96):
    p, d = right / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round((p + z * z / (2 * n) - half) / d, 4), round((p + z * z / (2 * n) + half) / d, 4)]


def answer_of(ids):
    return ids[ids.index(ANSWER) + 1:] if ANSWER in ids else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", required=True, help="checkpoint.pt of train.py or model.safetensors of export.py")
    p.add_argument("--lengths", default=",".join(map(str, SHAPES)))
    p.add_argument("--policies", default="full", help=",".join(POLICIES))
    p.add_argument("--shares", default="0.05,0.1,0.25,0.5")
    p.add_argument("--problems", type=int, default=200)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--buffer", type=int, default=32)
    p.add_argument("--mix-lambda", type=float, default=0.1)
    p.add_argument("--kernel", type=int, default=7)
    p.add_argument("--split", default="heldout")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--output", default="evaluation.jsonl")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.checkpoint)
    for length in map(int, args.lengths.split(",")):
        total = token_count(*SHAPES[length])
        for policy in args.policies.split(","):
            for share in [1.0] if policy == "full" else map(float, args.shares.split(",")):
                began, right, exact, divergence = time.time(), 0, 0, []
                settings = Settings(policy, round(share * total), buffer=args.buffer, mix_lambda=args.mix_lambda,
                                    kernel=args.kernel)
                for at in range(0, args.problems, args.batch):
                    problems = [problem_for(args.seed, args.split, length, args.first + i)
                                for i in range(at, min(at + args.batch, args.problems))]
                    for problem, ids in zip(problems, generate(model, problems, settings)):
                        reference = problem.ids[problem.prompt_length:]
                        right += answer_of(ids) == answer_of(reference)
                        exact += ids == reference
                        if ids != reference:
                            divergence.append(next((i for i, (a, b) in enumerate(zip(ids, reference)) if a != b), -1))
                record = {"length": length, "tokens": total, "policy": policy, "share": share,
                          "budget": settings.budget if policy != "full" else total, "buffer": args.buffer,
                          "problems": args.problems, "answers": right, "accuracy": round(right / args.problems, 4),
                          "interval": wilson(right, args.problems), "exact_chains": exact,
                          "median_divergence": sorted(divergence)[len(divergence) // 2] if divergence else None,
                          "seconds": round(time.time() - began)}
                if policy == "rkv":
                    record.update(mix_lambda=args.mix_lambda, kernel=args.kernel)
                print(json.dumps(record), flush=True)
                with open(args.output, "a") as file:
                    file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
