// Figures of the GPU, of cuBLASLt on it and of our kernels, one JSON object a line:
//
//   gpu_bench [--small] GROUP...     --small: sizes for an emulator
//
// bench/gpu/day.py runs the groups one process each: what one cannot do ends it alone.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "bench/gpu/gpu.h"

namespace cairn::bench {
namespace {

struct Group {
  const char* name;
  void (*measure)(Gpu& gpu);
};
constexpr Group kGroups[] = {{"device", MeasureDevice},
                             {"copy", MeasureCopy},
                             {"peak", MeasurePeak},
                             {"matmul", MeasureMatMuls},
                             {"attention", MeasureAttention},
                             {"importance", MeasureImportance},
                             {"redundancy", MeasureRedundancy},
                             {"selection", MeasureSelection},
                             {"compaction", MeasureCompaction},
                             {"event", MeasureEvent}};

const Group* FindGroup(const std::string& name) {
  for (const Group& group : kGroups) {
    if (name == group.name) return &group;
  }
  return nullptr;
}

int Main(int argc, char** argv) {
  bool small = false;
  std::vector<const Group*> groups;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--small") == 0) {
      small = true;
    } else if (const Group* group = FindGroup(argv[i]); group != nullptr) {
      groups.push_back(group);
    } else {
      std::fprintf(stderr, "gpu_bench: no group %s; there are", argv[i]);
      for (const Group& each : kGroups) std::fprintf(stderr, " %s", each.name);
      std::fprintf(stderr, "\n");
      return 64;
    }
  }
  absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(small);
  if (!gpu.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", std::string(gpu.status().message()).c_str());
    return 1;
  }
  for (const Group* group : groups) group->measure(**gpu);
  return 0;
}

}  // namespace
}  // namespace cairn::bench

int main(int argc, char** argv) { return cairn::bench::Main(argc, argv); }
