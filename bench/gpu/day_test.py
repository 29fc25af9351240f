#!/usr/bin/env python3
"""The report of day.py: goals by arithmetic that can be done by hand, and what it says of an emulated run."""
import unittest

import day_report

WEIGHTS = 4_000_000_000  # bytes, so 1 s at the copy bandwidth below
ENGINE = {"figure": "engine", "weight_bytes_read": WEIGHTS, "weights_read": WEIGHTS // 2, "kv_bytes_per_token": 1000,
          "num_layers": 10, "budget": 900, "buffer": 200}


def decode(case, batch, slots, ms):
    return {"figure": "decode", "case": case, "fits": True, "batch": batch, "slots": slots, "ms_per_step": ms,
            "ms_per_step_p50": ms, "ms_per_step_p99": ms, "tokens_per_second": 1e3 * batch / ms,
            "host_compression_share": 0.0, "prefill_tokens_per_second": 1.0}


def record(emulated=False):
    return {
        "emulated": emulated, "commit": "abc", "date": "2026-01-01", "ran_on": "Some GPU",
        "stages": {
            "versions": {"status": "ok", "figures": [{"figure": "device", "name": "Some GPU"}]},
            "ceilings": {"status": "ok", "figures": [{"figure": "copy", "GB/s": 4.0}, {"figure": "peak", "TFLOP/s": 1.0}]},
            "attention": {"status": "ok", "figures": [
                {"figure": "attention", "batch": 64, "slots": 1152, "kv_heads": 1, "us": 10.0, "GB/s": 3.0},
                {"figure": "attention", "batch": 64, "slots": 16384, "kv_heads": 8, "us": 1e6, "GB/s": 3.0}]},
            # Bounds: 1 s of weights, and 1000 x 4000 slots x 1000 bytes / 4 GB/s = 1 s of cache.
            "full": {"status": "ok", "figures": [ENGINE, decode("max@8000:4000", 1000, 4000, 2500.0)]},
            # 4 times as many of 1000 slots: 2 s too, but for the products: 2 x 4000 x 2e9 / 1e12 = 16 s.
            "rkv": {"status": "ok", "figures": [ENGINE, decode("max:1000", 4000, 1000, 34000.0)]},
            # 4000 sequences x 10 layers / 200 tokens = 200 a step of 3.4 ms each: 0.68 of 34 s, 2 %.
            # (Those of 16 layers together: an event has 10.)
            "compression": {"status": "ok", "figures": [
                {"figure": "event", "slots": 500, "batch": 1, "kv_heads": 8, "us": 1.0},
                {"figure": "event", "slots": 1100, "batch": 1, "kv_heads": 8, "us": 9000.0},
                {"figure": "event", "slots": 1100, "batch": 8, "kv_heads": 8, "us": 8 * 3400.0},
                {"figure": "event", "slots": 1100, "batch": 16, "kv_heads": 8, "us": 1.0}]},
            "greedy": {"status": "failed", "why": ["x: 1 of 5 answers differ from the CPU's"],
                       "runs": [{"name": "x", "status": "failed", "why": "1 of 5 answers differ from the CPU's"}]},
        },
    }


class ReportTest(unittest.TestCase):
    def test_roofline_counts_weights_products_and_cache(self):
        full, = day_report.decodes(record(), "full")
        self.assertAlmostEqual(full["bound_ms"], 5000)  # 1000 sequences: the products take 4 s, longer than the weights
        rkv, = day_report.decodes(record(), "rkv")
        self.assertAlmostEqual(rkv["bound_ms"], 17000)

    def test_goals_say_reached_and_by_how_much_missed(self):
        rows = {row["goal"].split(":")[0]: row for row in day_report.goals(record())}
        self.assertEqual(rows["decode, rkv, batch 4000 x 1000 slots"]["verdict"], "missed by 25.0 points")
        # 30 KB in 10 us at 3 of 4 GB/s: small, so 60 % is enough; 3 GB must reach 85 %.
        self.assertEqual(rows["decode attention, 64 x 1152 slots, 1 KV heads (0.00 GB)"]["verdict"], "reached")
        self.assertEqual(rows["decode attention, 64 x 16384 slots, 8 KV heads (3.00 GB)"]["verdict"],
                         "missed by 10.0 points")
        self.assertEqual(rows["compression, batch 4000"]["verdict"], "missed by 1.0 points")

    def test_gain_is_against_the_arithmetic_of_the_same_two_batches(self):
        gain, = day_report.gains(record())
        self.assertEqual(gain["answer"], 8000)
        self.assertAlmostEqual(gain["allowed"], (4000 / 17) / (1000 / 5))
        self.assertAlmostEqual(gain["measured"], (4000 / 34) / (1000 / 2.5))

    def test_the_gain_in_80_gb_is_a_row_of_its_own(self):
        larger = record()
        larger["stages"]["full_80gb"] = {"status": "ok", "figures": [ENGINE, decode("max@16384:8192", 500, 8192, 2000.0)]}
        larger["stages"]["rkv_80gb"] = {"status": "ok", "figures": [ENGINE, decode("max:1000", 2000, 1000, 2000.0)]}
        rows = [row["goal"] for row in day_report.goals(larger)]
        # Bounds: 2 s of products and 1.024 s of cache; 8 s and 0.5 s.
        wanted = (2000 / 8.5) / (500 / 3.024)
        row, = [row for row in rows if "R-KV's table" in row]
        self.assertIn(f"answers of 16384 tokens: 4.00 times as fast, {wanted:.2f} by arithmetic", row)
        self.assertIn("## 8B-shaped, rkv_80gb", day_report.report(larger, ["rkv_80gb"]))

    def test_report_of_a_gpu_names_it_and_every_stage(self):
        text = day_report.report(record(), ["versions", "greedy", "memcheck"])
        self.assertTrue(text.startswith("Ran on: Some GPU\n"))
        self.assertIn("| memcheck | not run |", text)
        self.assertIn("1 of 5 answers differ", text)
        self.assertIn("missed by 25.0 points", text)

    def test_emulated_report_says_so_first_and_judges_nothing(self):
        emulated = record(emulated=True)
        emulated["ran_on"] = day_report.ran_on(emulated)
        text = day_report.report(emulated, ["versions"])
        self.assertTrue(text.startswith("EMULATED: no GPU"))
        self.assertNotIn("reached", text)
        self.assertNotIn("missed", text)
        self.assertEqual(day_report.goals(emulated), [])

    def test_a_day_that_was_cut_short_has_a_report(self):
        cut = {"emulated": False, "commit": "abc", "date": "", "ran_on": "x", "stages": {
            "full": {"status": "cut short", "why": "its limit was over", "figures": [ENGINE]},
            "matmuls": {"status": "ok", "figures": [{"figure": "matmul", "weights": "8b/o", "m": 1, "type": "fp8",
                                                     "workspace": 0, "algorithms": 0}]}}}
        text = day_report.report(cut, ["versions", "full", "matmuls"])
        self.assertIn("| full | cut short |", text)


if __name__ == "__main__":
    unittest.main()
