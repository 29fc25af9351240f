#!/usr/bin/env python3
"""Checks the demo task's generator: plain Python, run by ctest."""

import random
import re
import unittest

import task

LINE = re.compile(r"([a-z])([A-P])=(\w\w\d[-+]\w\w\d)=([-\d]\d);([-\d]\d)([-+])(\d)=(\d);(?:\?(\w\w)=(\w\w\d[-+]\w\w\d)=([-\d]\d);)?(\w\w\d)")


def solve(prompt):
    """(cell, stage) -> value, computed from the text of the prompt alone."""
    initial, rules, questions = prompt.removesuffix("<think>").split("\n")
    rules, last = rules.split("@")
    values = {(cell, "A"): int(digit) for cell, digit in re.findall(r"([a-z])A(\d)", initial)}
    for before, stage in zip(task.STAGES, task.STAGES[1:task.STAGES.index(last) + 1]):
        for head, first, operator, second in re.findall(r"([a-z])([a-z])([-+])([a-z]);", rules):
            a, b = values[first, before], values[second, before]
            values[head, stage] = (a + b if operator == "+" else a - b) % 10
    return values, re.findall(r"([#$%])([a-z])([A-P])", questions)


class TaskTest(unittest.TestCase):
    def problems(self, count=40):
        rng = random.Random(5)
        for _ in range(count):
            yield task.make_problem(rng, rng.randint(2, 26), rng.randint(1, 6))

    def test_answers_follow_from_the_prompt(self):
        for p in self.problems():
            values, questions = solve(p.prompt)
            expected = "".join(f"{label}{cell}{stage}{values[cell, stage]}" for label, cell, stage in questions)
            self.assertEqual(p.answer, expected)

    def test_chain_lines_are_true(self):
        for p in self.problems():
            values, _ = solve(p.prompt)
            binding = lambda text: values[text[0], text[1]]
            lines = [line for line in p.chain.removesuffix("</think>").split("\n") if not line.startswith("@")]
            self.assertEqual(len(lines), p.cells * p.rounds)
            for line in lines:
                head, stage, sides, total, check, sign, b, a, verified, again, second_total, result = LINE.fullmatch(line).groups()
                for sum_text, digits in ((sides, total), (again, second_total)):
                    if sum_text:
                        left, operator, right = sum_text[:3], sum_text[3], sum_text[4:]
                        self.assertEqual((binding(left), binding(right)), (int(left[2]), int(right[2])))
                        exact = int(left[2]) + int(right[2]) if operator == "+" else int(left[2]) - int(right[2])
                        self.assertEqual(int(digits), exact)
                self.assertEqual(check, total)
                self.assertEqual(int(check) + (int(b) if sign == "+" else -int(b)), int(a))
                self.assertEqual(result, f"{head}{stage}{values[head, stage]}")
                self.assertEqual(int(total) % 10, values[head, stage])
                self.assertEqual(verified is not None, stage > "B")

    def test_count_and_encoding(self):
        for p in self.problems():
            self.assertEqual(len(p.ids), task.token_count(p.cells, p.rounds))
            self.assertEqual([0] + task.encode(p.prompt + p.chain + p.answer + "<|eos|>"), p.ids)

    def test_published_lengths_and_prompt_share(self):
        for length, (cells, rounds) in task.SHAPES.items():
            p = task.problem_for(0, "heldout", length, 0)
            self.assertLess(abs(len(p.ids) - length), 0.03 * length)
        self.assertLessEqual(p.prompt_length, 0.05 * len(p.ids))   # at 4,000

    def test_same_seed_same_problem_and_splits_differ(self):
        a, b, c = (task.problem_for(0, split, 500, 7) for split in ("heldout", "heldout", "train"))
        self.assertEqual(a.ids, b.ids)
        self.assertNotEqual(a.ids, c.ids)

    def test_needs_are_stated_before(self):
        for p in self.problems(10):
            stated = set()
            for needs, fact in zip(p.needs, p.states):
                for need in needs:
                    self.assertIn(need, stated)
                stated.add(fact)

    def test_oracle_keeps_a_statement_of_every_fact_that_is_needed_later(self):
        p = task.problem_for(0, "heldout", 1000, 0)
        sets = task.oracle_needs(p)
        self.assertEqual(len(sets), len(p.ids) + 1)
        for t, kept in enumerate(sets):
            self.assertTrue(all(position < t for position in kept))
            facts = {p.states[position] for position in kept}
            stated = set(p.states[:t])
            for needs in p.needs[t:]:
                for need in needs:
                    self.assertTrue(need in facts or need not in stated)
        self.assertEqual(sets[-1], [])

    def test_bad_shape_is_refused(self):
        for cells, rounds in ((1, 3), (27, 3), (3, 0), (3, 16)):
            with self.assertRaisesRegex(ValueError, "cells must be 2 to 26 and rounds 1 to 15"):
                task.make_problem(random.Random(0), cells, rounds)


if __name__ == "__main__":
    unittest.main()
