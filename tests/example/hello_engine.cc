// The library in twenty lines: prints a greedy answer of a checkpoint to a prompt. hello_engine DIR PROMPT
#include <cstdio>

#include "engine/engine.h"

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: hello_engine DIR PROMPT\n"), 64;
  cairn::EngineOptions options;
  options.model = argv[1];
  auto engine = cairn::Engine::CreateLocal(options);
  if (!engine.ok()) return std::fprintf(stderr, "%s\n", engine.status().ToString().c_str()), 1;

  cairn::Request request{.id = "hello", .prompt_ids = (*engine)->tokenizer()->Encode(argv[2], true)};
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 32;
  if (auto added = (*engine)->Add(request); !added.ok())
    return std::fprintf(stderr, "%s\n", added.ToString().c_str()), 1;

  while ((*engine)->HasWork()) {
    auto outputs = (*engine)->Step();
    if (!outputs.ok()) return std::fprintf(stderr, "%s\n", outputs.status().ToString().c_str()), 1;
    for (const auto& output : *outputs) {
      if (output.finished) std::printf("%s\n", output.completions[0].text.c_str());
    }
  }
}
