"""Trains the demo model on generated problems; stops and resumes anywhere.

    python tools/demo_model/train.py --out build/demo_model --tokens 8e6             # start, or go on
    torchrun --nproc-per-node 2 tools/demo_model/train.py --out ... --tokens 8e6     # data parallel on CPU cores

A run is a function of its flags: problems are drawn from (seed, step, rank). Levels of length advance when the token error
of the newest level is small. While rows are short the attention of a few heads is supervised (the facts of task.py say
where to look); the weights stay those of a standard model. Checkpoint: OUT/checkpoint.pt (weights, optimizer, counters);
log: OUT/training_log.jsonl.
"""

import argparse
import json
import os
import random
import signal
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from model import Config, Model
from task import LINE_PARTS, ROLE, ROLES, make_problem, token_count

LEVELS = [180, 300, 520, 1050, 2050, 4100]   # tokens of a row, at most

# Supervised attention: the first layer's query heads look this many tokens back; in a later layer the two query heads of
# a KV head look up facts of these kinds.
OFFSET_LAYER, OFFSETS = 0, [1, 1, 2, 2, 3, 4, 5, 6]
FACT_LAYER, FACT_GROUPS = 2, [("value",), ("rule", "next", "final", "ask"), ("local",)]
LASTING_GROUPS = [0, 1]   # facts that hold for the whole chain: found where they were first stated, not in restatements
FACT_ROLES = {"value": ("value", "answer")}   # a value is looked up by these; the others copy it from nearby
SUPERVISED_BELOW = 1100                       # tokens a row
SUPERVISED_PAIRS = 400_000                    # (query, key) pairs of a step: so many rows at most are supervised


def flags():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--tokens", type=float, default=8e6, help="length of the whole run; the rate falls towards it")
    p.add_argument("--decay", type=float, default=0.5, help="share of the run over which the rate falls to 2 %%")
    p.add_argument("--tokens-per-step", type=int, default=3200)
    p.add_argument("--muon-lr", type=float, default=0.02)
    p.add_argument("--embedding-lr", type=float, default=0.02)
    p.add_argument("--head-lr", type=float, default=3e-3)
    p.add_argument("--norm-lr", type=float, default=0.01)
    p.add_argument("--supervision", type=float, default=0.4)
    p.add_argument("--rest", type=float, default=0.5, help="weight, within it, of resting on the first token when there is "
                   "nothing to look up, as the heads of large models do")
    p.add_argument("--redundancy", type=float, default=1.0, help="weight, within it, of keys of tokens that nothing looks "
                   "up being alike, and those of different facts unlike (0: none)")
    p.add_argument("--threshold", type=float, default=0.02, help="token error at which the next level starts")
    p.add_argument("--newest-share", type=float, default=0, help="share of steps at the newest level; the rest: any")
    p.add_argument("--even-rounds", type=int, default=1, help="draw the number of rounds evenly, so that late stages are not rare")
    p.add_argument("--header-weight", type=float, default=4, help="weight of the few tokens that end or go on with a chain")
    p.add_argument("--gap", type=float, default=0.5, help="share of rows with gaps in their positions")
    p.add_argument("--span", type=int, default=8000, help="positions that gaps may reach")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--checkpoint-seconds", type=float, default=120)
    p.add_argument("--log-seconds", type=float, default=20)
    p.add_argument("--stop-after-seconds", type=float, default=1e9)
    return p.parse_args()


def random_shape(rng, limit, even_rounds):
    """Cells and rounds of a row with at most `limit` tokens: many cells and few rounds, or the reverse."""
    shapes = [(cells, rounds) for rounds in range(1, 9) for cells in range(2, 25)
              if limit * 0.55 <= token_count(cells, rounds) <= limit]
    if not even_rounds:
        return rng.choice(shapes)
    rounds = rng.choice(sorted({rounds for _, rounds in shapes}))
    return rng.choice([shape for shape in shapes if shape[1] == rounds])


def make_batch(rng, cells, rounds, rows):
    """Arrays of `rows` problems of one shape: ids, roles, states [B, T], needs and first statements [groups, B, T].

    parts [B, T]: which part of its line a token is, or -1.
    """
    problems = [make_problem(rng, cells, rounds) for _ in range(rows)]
    ids = np.array([p.ids for p in problems])
    roles = np.array([p.roles for p in problems])
    states = np.full(ids.shape, -1)
    needs = np.full((len(FACT_GROUPS),) + ids.shape, -1)
    first = np.zeros(needs.shape, dtype=bool)
    parts = np.full(ids.shape, -1)
    group_of = {kind: g for g, kinds in enumerate(FACT_GROUPS) for kind in kinds}
    for b, p in enumerate(problems):
        number = {}
        for t, fact in enumerate(p.states):
            if fact is not None:
                first[group_of[fact[0]], b, t] = fact not in number
                if fact[0] == "local" and fact[2] in LINE_PARTS:
                    parts[b, t] = LINE_PARTS.index(fact[2])
                states[b, t] = number.setdefault(fact, len(number))
        for t, facts in enumerate(p.needs):
            wanted = {}
            for fact in facts:
                if ROLES[p.roles[t]] in FACT_ROLES.get(fact[0], ROLES) and (fact[0] != "local" or fact[2] in LINE_PARTS):
                    wanted.setdefault(group_of[fact[0]], []).append(fact)
            for g, found in wanted.items():
                if len(found) == 1:
                    needs[g, b, t] = number[found[0]]
    return problems, ids, roles, states, needs, first, parts


def positions_with_gaps(rng, problems, total, share, span):
    """Positions [B, T] and which tokens count in the loss [B, T].

    A share of the rows jumps ahead at 1 to 4 line starts, up to `span` positions in all. The tokens after a line's first
    continue the line before, which a jump moves out of sight: they do not count.
    """
    positions = np.tile(np.arange(total), (len(problems), 1))
    counts = np.ones(positions.shape, dtype=bool)
    if total < span:
        for row, counted, p in zip(positions, counts, problems):
            if rng.random() < share:
                room, gaps = int((span - total) * rng.random()), rng.randint(1, 4)
                cuts = [0] + sorted(rng.random() for _ in range(gaps - 1)) + [1]
                for low, high in zip(cuts, cuts[1:]):
                    start = rng.choice(p.lines)
                    row[start:] += int((high - low) * room)
                    counted[start + 1:start + 3] = False
    return positions, counts


UNLIKE = 0.2    # cosine below which the keys of two facts count as different; R-KV's threshold is 0.5


def redundancy_loss(keys, needed):
    """How little the keys of tokens that nothing looks up resemble each other, and how much the others resemble them.

    keys [B, T, d] after RoPE, needed [B, T]. In large models keys share a large common part; here nothing makes them.
    """
    normed = F.normalize(keys.float(), dim=-1)
    other = ~needed
    other[:, 0] = False     # the first token, where heads rest
    centre = (normed * other[..., None]).sum(1) / other.sum(1)[:, None]
    size = centre.norm(dim=-1)
    likeness = (normed @ (centre / (size[:, None] + 1e-6))[..., None])[..., 0]
    return (1 - size).mean() + (F.relu(likeness + 0.2) * needed).sum() / needed.sum()


def likeness_loss(keys, facts):
    """How much the keys of different facts resemble each other. keys [B, T, d], facts [B, T]: first statements.

    R-KV spares the newest of keys that are alike and takes the others for copies of it.
    """
    stated = F.normalize(keys.float(), dim=-1) * facts[..., None]
    count = facts.sum(1)
    pairs = F.relu(stated @ stated.mT - UNLIKE).sum((1, 2)) - (1 - UNLIKE) * count     # less each with itself
    return (pairs / (count * (count - 1) + 1e-6)).mean()


def recurrence_loss(keys, parts):
    """How little the keys of each part of a line resemble those of the same part of other lines, and how much those of others.

    keys [B, T, d].
    """
    member = (parts[..., None] == torch.arange(len(LINE_PARTS), device=parts.device)).float()      # [B, T, parts]
    centre = torch.einsum("btd,btp->bpd", F.normalize(keys.float(), dim=-1), member) / (member.sum(1) + 1e-6)[..., None]
    unit = F.normalize(centre, dim=-1)
    others = ~torch.eye(len(LINE_PARTS), dtype=torch.bool, device=parts.device)
    return 1 - centre.norm(dim=-1).mean() + F.relu(unit @ unit.mT - UNLIKE)[:, others].mean()


def supervision_loss(model, states, needs, first, parts, positions, rest, redundancy):
    """Mean -log of the attention that supervised heads give to where they should look. states, positions [B, T].

    rest: weight of looking at the first token when a fact head has nothing to look up; redundancy: of redundancy_loss.
    """
    t = states.shape[1]
    rows = max(1, SUPERVISED_PAIRS // (t * t))
    states, needs, first, parts, positions = states[:rows], needs[:, :rows], first[:, :rows], parts[:rows], positions[:rows]
    causal = torch.ones(t, t, dtype=torch.bool, device=states.device).tril()
    group = model.c.num_heads // model.c.num_kv_heads

    def log_attention(layer, heads):
        q, k = model.layers[layer].self_attn.last
        q = q[:rows, heads].float()
        k = k[:rows, [h // group for h in heads]].float()
        logits = q @ k.transpose(-1, -2) * model.c.head_dim**-0.5
        return logits.masked_fill(~causal, -1e30).log_softmax(-1)

    offsets = log_attention(OFFSET_LAYER, list(range(len(OFFSETS))))
    loss = 0
    for h, o in enumerate(OFFSETS):
        together = positions[:, o:] - positions[:, :-o] == o
        loss = loss - torch.diagonal(offsets[:, h], offset=-o, dim1=-2, dim2=-1)[together].mean() / len(OFFSETS)
    detail = [loss.item()]
    for g in range(len(FACT_GROUPS)):
        log_p = log_attention(FACT_LAYER, list(range(g * group, (g + 1) * group)))[:, :, :-1]
        wanted = needs[g][:, 1:]                               # the query that predicts token t+1 stands at t
        source = (states[:, None, :] == wanted[:, :, None]) & causal[:-1] & (wanted >= 0)[:, :, None]
        if g in LASTING_GROUPS:
            source = source & first[g][:, None, :]
        asks = source.any(-1)
        found = log_p.masked_fill(~source[:, None], -1e30).logsumexp(-1)
        part = -(found * asks[:, None]).sum() / (asks.sum() * group + 1e-6)
        detail.append(part.item())
        resting = -(log_p[..., 0] * ~asks[:, None]).sum() / ((~asks).sum() * group + 1e-6)
        loss = loss + part + rest * resting
        keys = model.layers[FACT_LAYER].self_attn.last[1][:rows, g]
        if g in LASTING_GROUPS:
            alike = redundancy_loss(keys, first[g]) + likeness_loss(keys, first[g])
        else:
            alike = redundancy_loss(keys, parts >= 0) + recurrence_loss(keys, parts)
        detail.append(alike.item())
        loss = loss + redundancy * alike
    return loss, detail + [resting.item()]


class Muon:
    """Momentum whose update is made orthogonal by five Newton-Schulz steps (K. Jordan, 2024), shapes batched."""

    def __init__(self, parameters, momentum=0.95, weight_decay=0.05):
        self.momentum, self.weight_decay = momentum, weight_decay
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.buffers = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        for shape, ps in self.groups.items():
            grad, buffer = torch.stack([p.grad for p in ps]), self.buffers[shape]
            buffer.lerp_(grad, 1 - self.momentum)
            x = grad.lerp(buffer, self.momentum).bfloat16()
            x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
            tall = shape[0] > shape[1]
            x = x.mT if tall else x
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
            x = (x.mT if tall else x).float() * (max(1, shape[0] / shape[1]) ** 0.5 * lr)
            for p, update in zip(ps, x):
                p.mul_(1 - lr * self.weight_decay).sub_(update)


def main():
    args = flags()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1:
        dist.init_process_group("gloo")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    model = Model(Config()).to(device)
    for layer in (OFFSET_LAYER, FACT_LAYER):
        model.layers[layer].self_attn.record = True
    matrices = [p for n, p in model.named_parameters() if n.startswith("layers") and p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    muon = Muon(matrices)
    adam = torch.optim.Adam([{"params": [model.embed_tokens.weight], "base": args.embedding_lr},
                             {"params": [model.lm_head.weight], "base": args.head_lr},
                             {"params": norms, "base": args.norm_lr}], betas=(0.9, 0.98), eps=1e-10)
    os.makedirs(args.out, exist_ok=True)
    checkpoint = os.path.join(args.out, "checkpoint.pt")
    state = {"step": 0, "tokens": 0, "level": 0, "seconds": 0.0, "error": {}}
    if os.path.exists(checkpoint):
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        muon.buffers.update(saved["muon"])
        adam.load_state_dict(saved["adam"])
        state = saved["state"]

    def save():
        if rank == 0:
            torch.save({"model": model.state_dict(), "muon": muon.buffers, "adam": adam.state_dict(), "state": state,
                        "flags": vars(args)}, checkpoint + ".new")
            os.replace(checkpoint + ".new", checkpoint)

    def log(record):
        if rank == 0:
            print(json.dumps(record), flush=True)
            with open(os.path.join(args.out, "training_log.jsonl"), "a") as file:
                file.write(json.dumps(record) + "\n")

    log({"event": "start", "parameters": sum(p.numel() for p in model.parameters()), "world": world, **vars(args),
         **{k: state[k] for k in ("step", "tokens", "level")}})
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))   # finish the step, save, leave
    started = last_log = last_save = time.time()
    wrong, seen = np.zeros(len(ROLES)), np.zeros(len(ROLES))
    logged_tokens, loss_sum, loss_count, detail = state["tokens"], 0.0, 0, []
    leave = False
    while state["tokens"] < args.tokens and not leave:   # all ranks leave after the same step
        step_began = time.time()
        choose = random.Random(f"{args.seed}/{state['step']}")
        level = state["level"] if choose.random() < args.newest_share else choose.randint(0, state["level"])
        cells, rounds = random_shape(choose, LEVELS[level], args.even_rounds)
        total = token_count(cells, rounds)
        rows = max(1, round(args.tokens_per_step / world / total))
        rng = random.Random(f"{args.seed}/{state['step']}/{rank}")
        problems, ids, roles, states, needs, first, parts = make_batch(rng, cells, rounds, rows)
        positions, counts = positions_with_gaps(rng, problems, total, args.gap if state["level"] >= 1 else 0, args.span)
        start = problems[0].prompt_length
        counts = counts[:, start:]
        ids, positions = torch.tensor(ids, device=device), torch.tensor(positions, device=device)

        supervised = args.supervision > 0 and total < SUPERVISED_BELOW
        with torch.autocast(device.type, torch.bfloat16):
            logits = model.lm_head(model.hidden(ids, positions)[:, start - 1:-1]).float()
        target = ids[:, start:]
        weight = torch.tensor(counts * np.where(roles[:, start:] == ROLE["header"], args.header_weight, 1.0), device=device).float()
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        loss = (each * weight).sum() / weight.sum()
        objective = loss
        if supervised:
            extra, detail = supervision_loss(model, torch.tensor(states, device=device), torch.tensor(needs, device=device),
                                             torch.tensor(first, device=device), torch.tensor(parts, device=device), positions, args.rest, args.redundancy)
            objective = loss + args.supervision * extra
        objective.backward()
        bad = (logits.argmax(-1) != target).cpu().numpy() & counts
        leave = bool(stop) or time.time() - started > args.stop_after_seconds
        summary = torch.tensor([bad.sum() / counts.sum(), loss.item(), leave])
        if world > 1:
            gradients = [p.grad for p in model.parameters()]
            flat = torch.cat([g.flatten() for g in gradients] + [summary])
            dist.all_reduce(flat)
            flat /= world
            at = 0
            for g in gradients:
                g.copy_(flat[at:at + g.numel()].view_as(g))
                at += g.numel()
            summary = flat[-3:]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        done = state["tokens"] / args.tokens
        rate = min(1, (state["step"] + 1) / 50) * min(1, max(0.02, (1 - done) / args.decay))
        for g in adam.param_groups:
            g["lr"] = g["base"] * rate
        muon.step(args.muon_lr * rate)
        adam.step()
        adam.zero_grad()

        error, value, leave = summary.tolist()
        state["step"] += 1
        state["tokens"] += rows * total * world
        state["seconds"] += time.time() - step_began
        state["error"][level] = error if level not in state["error"] else 0.9 * state["error"][level] + 0.1 * error
        loss_sum, loss_count = loss_sum + value, loss_count + 1
        chain_roles = roles[:, start:]
        wrong += np.bincount(chain_roles[bad], minlength=len(ROLES))
        seen += np.bincount(chain_roles[counts], minlength=len(ROLES))
        if level == state["level"] < len(LEVELS) - 1 and state["error"][level] < args.threshold:
            state["level"] += 1
            log({"event": "level", "limit": LEVELS[state["level"]], "tokens": state["tokens"],
                 "seconds": round(state["seconds"])})
        now = time.time()
        if now - last_log > args.log_seconds:
            log({"seconds": round(state["seconds"]), "step": state["step"], "tokens": state["tokens"],
                 "tokens_per_second": round((state["tokens"] - logged_tokens) / (now - last_log)),
                 "limit": LEVELS[state["level"]], "rate": round(rate, 3), "loss": round(loss_sum / loss_count, 5),
                 "supervision": [round(x, 3) for x in detail],
                 "error": {LEVELS[k]: round(v, 5) for k, v in sorted(state["error"].items())},
                 "error_by_role": {r: round(w / n, 5) for r, w, n in zip(ROLES, wrong, seen) if n}})
            wrong, seen = np.zeros(len(ROLES)), np.zeros(len(ROLES))
            logged_tokens, loss_sum, loss_count, last_log = state["tokens"], 0.0, 0, now
        if now - last_save > args.checkpoint_seconds:
            save()
            last_save = time.time()
    save()
    log({"event": "stop", **{k: state[k] for k in ("step", "tokens", "level")}, "seconds": round(state["seconds"])})


if __name__ == "__main__":
    main()
