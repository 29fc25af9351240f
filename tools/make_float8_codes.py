#!/usr/bin/env python3
"""Writes tests/data/float8_e4m3.txt: PyTorch's float8_e4m3fn, which our codes must equal.

A line for each code from 00 to 7e: the code, the bits of the float32 that it means, and the bits of the smallest
float32 >= 0 that becomes it. Numbers above 448 are cut to that first, as vLLM does for a KV cache (PyTorch alone makes
NaN of those from 464 on). Checked besides: every bfloat16, the numbers around each threshold, and negative ones.

    tools/make_float8_codes.py > tests/data/float8_e4m3.txt
"""
import torch


def codes_of(bits):
    values = torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)
    return values.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).tolist()


def main():
    first = []
    for code in range(0x7F):
        low, high = 0, 0x7F800000  # the smallest bits in [low, high] whose code is at least `code`
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if codes_of([middle])[0] >= code else (middle + 1, high)
        first.append(low)

    def expected(bits):
        return max(code for code in range(0x7F) if first[code] <= bits)

    checked = [b << 16 for b in range(0x7F81)] + [b + d for b in first[1:] for d in (-1, 0, 1)]
    assert codes_of(checked) == [expected(b) for b in checked]
    assert codes_of([b - (1 << 31) for b in checked]) == [expected(b) | 0x80 for b in checked]
    values = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float().view(torch.int32).tolist()
    print(f"# torch {torch.__version__}: code, float32 of the code, first float32 that gets it (tools/make_float8_codes.py)")
    for code in range(0x7F):
        print(f"{code:02x} {values[code]:08x} {first[code]:08x}")


if __name__ == "__main__":
    main()
