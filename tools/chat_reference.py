#!/usr/bin/env python3
"""What Jinja makes of published chat templates: the expected values of tests/engine/text/chat_template_test.cc.

  python3 -m venv V && V/bin/pip install jinja2
  V/bin/python tools/chat_reference.py [--templates tests/data/text/chat_templates] [--out tests/data/text/chat_cases.json]

Renders every *.jinja of the folder as transformers does (trim_blocks, lstrip_blocks, loop controls, a generation prompt) for
seeded conversations, with enable_thinking true and false. No strftime_now is given, so that a template which asks for
today's date writes its fixed one. "error" stands for a conversation that the template refuses.
"""
import argparse
import glob
import json
import os
import random

import jinja2.ext
import jinja2.sandbox

BOS_EOS = {"deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), "llama-3": ("<|begin_of_text|>", "<|eot_id|>")}
# Templates of these families drop, or print without a mark, a system message that is not the first: it is refused here.
SYSTEM_FIRST_ONLY = ("llama-2", "mistral-v", "mistral-nemo")

ROLES = ["u", "su", "uau", "suau", "ua", "sua", "uu", "s", "usu", "uauau", "suauaua", "au", "uaau", "ssu", "uaua"]
CONTENTS = ["Hello", "What is 2 + 2?", "", "  spaces around \n", "\n\nlines\n\n", "\u00a0\u3000wide\u2003\x1f", "日本語 🙂", "<|im_end|>",
            "quotes ' \" and {{ braces }}", "a\r\nb", "<tool_response>\nx\n</tool_response>", "<tool_response>open"]
ANSWERS = ["4", " 4 \n", "<think>\nadd them\n</think>\n\n4", "<think>\n\n</think>\n\nfour", "add\n</think>\n4", "<think>open",
           "a</think>b</think>\nc", "\n<think>one</think><think>two</think>\n\n\nthree\n", "</think>"]


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda x, **options: json.dumps(x, ensure_ascii=False, **options)
    env.globals["raise_exception"] = raise_exception
    return env


def conversation(rng, roles):
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[r], "content": rng.choice(ANSWERS if r == "a" else CONTENTS)} for r in roles]


def cases(name, source, bos, eos):
    rng = random.Random(name)
    template = environment().from_string(source)
    for roles in ROLES:
        if name.startswith(SYSTEM_FIRST_ONLY) and "s" in roles[1:]:
            continue
        case = {"messages": conversation(rng, roles)}
        if rng.random() < 0.4:
            case["enable_thinking"] = False
        try:
            case["expected"] = template.render(messages=case["messages"], add_generation_prompt=True, bos_token=bos,
                                               eos_token=eos, enable_thinking=case.get("enable_thinking", True))
        except jinja2.exceptions.TemplateError as error:
            case["error"] = str(error)
        yield case


def main():
    data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "text")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", default=os.path.join(data, "chat_templates"))
    parser.add_argument("--out", default=os.path.join(data, "chat_cases.json"))
    arguments = parser.parse_args()
    result = []
    for path in sorted(glob.glob(os.path.join(arguments.templates, "*.jinja"))):
        name = os.path.basename(path)[:-len(".jinja")]
        bos, eos = next((v for k, v in BOS_EOS.items() if name.startswith(k)), ("<s>", "</s>"))
        with open(path, encoding="utf-8", newline="") as f:
            source = f.read()
        result.append({"template": name, "bos": bos, "eos": eos, "cases": list(cases(name, source, bos, eos))})
    with open(arguments.out, "w", encoding="utf-8") as f:
        json.dump(result, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
