"""The demo model's task: coupled cells, stepped through stages, with every step worked out and re-verified.

A problem has n cells (lower-case letters). The prompt gives each cell's value at stage A (a digit), one rule a cell
(its next value is the sum or difference, modulo 10, of two cells at the stage before), the last stage, and three
questions (two cells at the last stage, one at the first):

    kA3fA0bA7            values at stage A
    bf+k;kb-f;fk+b;@D    rules: b' = f + k, k' = b - f, f' = k + b; the last stage
    #fD$bD%kA            the questions

The chain steps all cells through all stages, in the order of the rules. A line restates the rule, looks both operands
up, adds, takes the sum apart again, from stage C on re-derives the first operand from *its* operands, and states the
result; a header opens each stage:

    fD=kC3+bC7=10;10-7=3;?kC=bB3-fB0=03;fD0

The answer restates the questions with their values: #fD0$bD3%kA3.

Every token that is more than a few tokens' copy is annotated with the facts it needs, and every token that states a
fact (the value of a cell at a stage, a part of a rule, ...) with that fact. From this follow the attention targets used
in training and the set of tokens an oracle must keep (`oracle_needs`). Plain Python: no torch, no numpy.
"""

import random
from dataclasses import dataclass, field

SPECIALS = ["<|bos|>", "<|eos|>", "<think>", "</think>", "<|pad|>", "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>"]
VOCAB_SIZE = len(SPECIALS) + 256
CELLS = "abcdefghijklmnopqrstuvwxyz"
STAGES = "ABCDEFGHIJKLMNOP"
LABELS = "#$%"
MODULUS = 10

# Shapes (cells, rounds) whose token counts, prompt included, come closest to the lengths that are published.
SHAPES = {500: (3, 4), 1000: (5, 5), 2000: (10, 5), 4000: (20, 5)}

# What the next token is; errors are counted by role.
ROLES = ["format", "header", "next", "head", "stage", "operand", "operator", "value", "sum", "check", "verify", "result",
         "ask", "answer"]
ROLE = {name: index for index, name in enumerate(ROLES)}


# The parts of a line that the same line looks back at from farther than its digits, which are "a" and "b".
LINE_PARTS = ["head", "stage", "first", "before", "operator", "sum0", "sum1", "verify stage", "verify before"]


def token_id(token):
    """Id of a special token or of a single byte-sized character."""
    return SPECIALS.index(token) if len(token) > 1 else len(SPECIALS) + ord(token)


def token_text(index):
    return SPECIALS[index] if index < len(SPECIALS) else chr(index - len(SPECIALS))


def text(ids):
    return "".join(token_text(i) for i in ids)


def encode(string):
    """The ids of a text as the exported tokenizer gives them (without the <|bos|> that it adds)."""
    ids, at = [], 0
    while at < len(string):
        special = next((s for s in SPECIALS if string.startswith(s, at)), None)
        if special:
            ids.append(SPECIALS.index(special))
            at += len(special)
        else:
            ids.extend(len(SPECIALS) + byte for byte in string[at].encode())
            at += 1
    return ids


@dataclass
class Problem:
    """One problem, its reference chain and what each of its tokens says and needs."""
    cells: int
    rounds: int
    ids: list = field(default_factory=list)      # prompt, chain and answer
    roles: list = field(default_factory=list)    # role of each token (0 in the prompt)
    needs: list = field(default_factory=list)    # facts that predicting this token needs: tuples (kind, ...)
    states: list = field(default_factory=list)   # the fact that this token states, or None
    lines: list = field(default_factory=list)    # where chain lines begin
    prompt_length: int = 0
    answer_start: int = 0                        # the token after </think>
    values: dict = field(default_factory=dict)   # (cell, stage) -> digit

    @property
    def prompt(self):
        return text(self.ids[1:self.prompt_length])

    @property
    def chain(self):
        return text(self.ids[self.prompt_length:self.answer_start])

    @property
    def answer(self):
        return text(self.ids[self.answer_start:-1])

    def add(self, token, role="format", needs=(), states=None):
        self.ids.append(token_id(token))
        self.roles.append(ROLE[role])
        self.needs.append(tuple(needs))
        self.states.append(states)


def token_count(cells, rounds):
    """Tokens of a problem, prompt, answer and special tokens included."""
    return 8 * cells + 15 + rounds * 4 + cells * (25 + 40 * (rounds - 1)) + 3 + 13


def combine(operator, a, b):
    """The two characters that a sum or difference is written with, and its value modulo 10."""
    if operator == "+":
        return f"{a + b:02d}", (a + b) % MODULUS
    return (f"0{a - b}" if a >= b else f"-{b - a}"), (a - b) % MODULUS


def _statement(p, line, head, stage, rule, role_head, role_value, locals_prefix):
    """`fC=bB5+cB8=13`: a rule applied, with its operands looked up; returns its digits."""
    first, operator, second = rule
    before = STAGES[STAGES.index(stage) - 1]
    own = lambda name: ("local", line, locals_prefix + name)
    a, b = p.values[first, before], p.values[second, before]
    digits, _ = combine(operator, a, b)
    p.add("=")
    p.add(first, "operand", [("rule", head, 0)], own("first"))
    p.add(before, "stage", [own("stage")], own("before"))
    p.add(str(a), role_value, [("value", first, before)], own("a"))
    p.add(operator, "operator", [("rule", head, 1)], own("operator"))
    p.add(second, "operand", [("rule", head, 2)], ("rule", head, 2))
    p.add(before, "stage", [own("before")])
    p.add(str(b), role_value, [("value", second, before)], own("b"))
    p.add("=")
    p.add(digits[0], "sum", [own("a"), own("b")], own("sum0"))
    p.add(digits[1], "sum", [own("a"), own("b")], own("sum1"))
    return a, b, digits


def make_problem(rng, cells, rounds):
    """A random problem with its reference chain."""
    if not 2 <= cells <= len(CELLS) or not 1 <= rounds < len(STAGES):
        raise ValueError(f"cells must be 2 to {len(CELLS)} and rounds 1 to {len(STAGES) - 1}: got {cells}, {rounds}")
    p = Problem(cells, rounds)
    names = rng.sample(CELLS, cells)
    order = rng.sample(names, cells)
    # Every cell is the first operand of one rule and the second of one: nothing is computed in vain.
    while True:
        firsts, seconds = rng.sample(names, cells), rng.sample(names, cells)
        if all(a != b for a, b in zip(firsts, seconds)):
            break
    rules = {head: (firsts[i], rng.choice("+-"), seconds[i]) for i, head in enumerate(order)}
    last = STAGES[rounds]
    for cell in names:
        p.values[cell, "A"] = rng.randrange(MODULUS)

    p.add("<|bos|>")
    for cell in rng.sample(names, cells):
        p.add(cell)
        p.add("A")
        p.add(str(p.values[cell, "A"]), states=("value", cell, "A"))
    p.add("\n")
    for i, head in enumerate(order):
        p.add(head, states=("next", order[i - 1] if i else "@"))
        for slot, token in enumerate(rules[head]):
            p.add(token, states=("rule", head, slot))
        p.add(";")
    p.add("@", states=("next", order[-1]))
    p.add(last, states=("final",))
    p.add("\n")
    first_asked, second_asked = rng.sample(names, 2)
    asked = [(first_asked, last), (second_asked, last), (rng.choice(names), "A")]
    for label, (cell, stage) in zip(LABELS, asked):
        p.add(label)
        p.add(cell, states=("ask", label))
        p.add(stage)
    p.add("<think>")
    p.prompt_length = len(p.ids)

    line = 0
    for step in range(1, rounds + 1):
        stage, before = STAGES[step], STAGES[step - 1]
        p.lines.append(len(p.ids))
        p.add("@", "next", [("next", order[-1])] if step > 1 else [])
        p.add(stage, "header", [("final",), ("local", line, "stage")] if step > 1 else [])
        p.states[-1] = ("local", line + 1, "stage")
        p.add(last, "header", [("final",)], ("final",))
        p.add("\n")
        line += 1
        for i, head in enumerate(order):
            if i:
                line += 1
            own = lambda name, line=line: ("local", line, name)
            first, operator, second = rules[head]
            p.lines.append(len(p.ids))
            p.add(head, "next", [("next", order[i - 1] if i else "@")], own("head"))
            p.add(stage, "stage", [("local", line - 1 if i else line, "stage")], own("stage"))
            a, b, digits = _statement(p, line, head, stage, rules[head], "head", "value", "")
            p.add(";")
            p.add(digits[0], "check", [own("sum0")])
            p.add(digits[1], "check", [own("sum1")])
            p.add("-" if operator == "+" else "+", "check", [own("operator")])
            p.add(str(b), "check", [own("b")])
            p.add("=")
            p.add(str(a), "check", [own("a")])
            p.add(";")
            if step > 1:
                p.add("?", "format", [own("stage")])    # stage B has no such part
                p.add(first, "verify", [own("first")])
                p.add(before, "verify", [own("before")], own("verify stage"))
                _statement(p, line, first, before, rules[first], "verify", "value", "verify ")
                p.add(";")
            p.values[head, stage] = combine(operator, a, b)[1]
            p.add(head, "head", [own("head")], own("head"))
            p.add(stage, "stage", [own("stage")], own("stage"))
            p.add(str(p.values[head, stage]), "result", [own("sum0"), own("sum1")], ("value", head, stage))
            p.add("\n")
    p.lines.append(len(p.ids))
    p.add("@", "next", [("next", order[-1])])
    p.add(".", "header", [("final",), ("local", line, "stage")])
    p.add("</think>")
    p.answer_start = len(p.ids)
    for label, (cell, stage) in zip(LABELS, asked):
        p.add(label, "ask")
        p.add(cell, "ask", [("ask", label)])
        p.add(stage, "ask", [("final",)] if stage == last else [])
        p.add(str(p.values[cell, stage]), "answer", [("value", cell, stage)])
    p.add("<|eos|>")
    return p


def fact_positions(problem):
    """fact -> positions that state it, ascending."""
    where = {}
    for position, fact in enumerate(problem.states):
        if fact is not None:
            where.setdefault(fact, []).append(position)
    return where


def oracle_needs(problem):
    """For each length t, the positions < t that must still be in the cache for the tokens from t on to be right.

    A fact that a later token needs is kept where it was first stated (the prompt, the line that computed it): that is
    where a model looks that was trained to find facts, restatements being copies. Facts first stated at or after t need
    nothing yet. Tokens of the last few positions (the engine's window) come on top. Returns a list of sorted lists,
    indexed by t = 0 .. number of tokens.
    """
    last_use = {fact: t for t, facts in enumerate(problem.needs) for fact in facts}
    kept, sets = {}, [[]]
    for t, fact in enumerate(problem.states):
        if fact in last_use and last_use[fact] > t:
            kept.setdefault(fact, t)
        kept = {f: position for f, position in kept.items() if last_use[f] > t}
        sets.append(sorted(kept.values()))
    return sets


def problem_for(seed, split, length, index):
    """The index-th problem of a split ("heldout" or "train") at one of the published lengths."""
    return make_problem(random.Random(f"{split}/{seed}/{length}/{index}"), *SHAPES[length])


if __name__ == "__main__":
    example = make_problem(random.Random(0), 3, 3)
    print(example.prompt)
    print(example.chain)
    print(example.answer)
    for length, shape in SHAPES.items():
        problem = problem_for(0, "heldout", length, 0)
        sizes = [len(s) for s in oracle_needs(problem)[problem.prompt_length:]]
        print(length, shape, len(problem.ids), token_count(*shape), "prompt", problem.prompt_length, "oracle mean",
              sum(sizes) / len(sizes), "max", max(sizes))
