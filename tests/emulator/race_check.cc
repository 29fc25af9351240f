#include "tests/emulator/race_check.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "tests/emulator/device_memory.h"
#include "tests/emulator/shared_memory.h"

namespace cuda_emulator::race {
namespace {

// One thread's access: who, and what it had passed. 0 is nobody.
struct Access64 {
  uint64_t block : 22, thread : 10, barriers : 12, warp_operations : 18, atomic : 1, taken : 1;
};
constexpr uint32_t kMaxBlock = (1 << 22) - 1, kMaxBarriers = (1 << 12) - 1, kMaxWarpOperations = (1 << 18) - 1;

// What is known of one byte: the last write and the last two readers. 40 bytes for each byte that is touched.
struct Cell {
  Access64 write, reads[2];
  uint32_t write_pc, read_pcs[2];  // offsets from the program's start
  uint32_t generation;             // kernel (device memory) or block (shared memory)
};

struct Region {
  size_t bytes = 0;
  Cell* cells = nullptr;
};

std::map<const char*, Region> regions;  // device memory by its first byte
const char* last_begin = nullptr;       // where the last access was
Region last_region, shared;
uint32_t kernel_generation = 0, block_generation = 0;
uint32_t block = 0, thread = 0, barriers = 0, warp_operations = 0;
thread_local bool inside = false;  // hooks also run in the host code beside the kernels, on any thread
bool enabled = true, hooks_called = false;
std::string kernel_name, first_finding;
int64_t num_races = 0;

// Zero pages until touched.
Cell* MapCells(size_t bytes) {
  void* cells =
      mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (cells == MAP_FAILED) {
    std::perror("cuda emulator: the race check's memory");
    std::abort();
  }
  return static_cast<Cell*>(cells);
}

const char* const program_start = [] {
  Dl_info info = {};
  dladdr(reinterpret_cast<const void*>(&MapCells), &info);
  return static_cast<const char*>(info.dli_fbase);
}();

// file:line of a place in this program, by addr2line.
std::string SourceOf(uint32_t pc_offset) {
  char command[96];
  std::snprintf(command, sizeof(command), "addr2line -e /proc/%d/exe 0x%x 2>/dev/null", getpid(), pc_offset - 1);
  std::string text;
  if (FILE* pipe = popen(command, "r")) {
    char line[512];
    if (std::fgets(line, sizeof(line), pipe) != nullptr) text = line;
    pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "?" : text;
}

bool IsOrdered(const Access64& other, bool is_atomic) {
  if (!other.taken || (other.atomic && is_atomic)) return true;
  if (other.block != block) return false;
  if (other.thread == thread || other.barriers < barriers) return true;
  return other.thread / 32 == thread / 32 && other.warp_operations < warp_operations;
}

void Report(const char* what, const char* address, const Access64& other, uint32_t other_pc, uint32_t pc) {
  if (num_races++ > 0 && !first_finding.empty()) return;
  const bool in_shared = address >= SharedBegin() && address < SharedBegin() + SharedBytes();
  first_finding = "kernel " + kernel_name + ": race on " + (in_shared ? "shared" : "device") + " memory: block " +
                  std::to_string(block) + " thread " + std::to_string(thread) + " " + what + " block " +
                  std::to_string(static_cast<uint32_t>(other.block)) + " thread " +
                  std::to_string(static_cast<uint32_t>(other.thread)) + ", at " + SourceOf(pc) + " and " +
                  SourceOf(other_pc);
}

void ReportOutOfBounds(bool is_write, size_t bytes, uint32_t pc) {
  if (!first_finding.empty()) return;
  first_finding = "kernel " + kernel_name + ": out of bounds: block " + std::to_string(block) + " thread " +
                  std::to_string(thread) + (is_write ? " writes " : " reads ") + std::to_string(bytes) +
                  " bytes of device memory outside of any allocation, at " + SourceOf(pc);
}

// The cells of an access and the generation they must have; null where the memory is not watched.
Cell* Find(const char* address, size_t bytes, uint32_t& generation) {
  if (address >= SharedBegin() && address + bytes <= SharedBegin() + SharedBytes()) {
    if (shared.cells == nullptr) shared = {SharedBytes(), MapCells(SharedBytes())};
    generation = block_generation;
    return shared.cells + (address - SharedBegin());
  }
  if (address < last_begin || address + bytes > last_begin + last_region.bytes) {
    auto after = regions.upper_bound(address);
    if (after == regions.begin()) return nullptr;
    const auto& [begin, region] = *--after;
    if (address + bytes > begin + region.bytes) return nullptr;
    last_begin = begin;
    last_region = region;
  }
  generation = kernel_generation;
  return last_region.cells + (address - last_begin);
}

}  // namespace

void Watch(const void* memory, size_t bytes) { regions[static_cast<const char*>(memory)] = {bytes, MapCells(bytes)}; }

void Unwatch(const void* memory) {
  const auto it = regions.find(static_cast<const char*>(memory));
  if (it == regions.end()) return;
  last_begin = nullptr;
  last_region = Region();
  munmap(it->second.cells, it->second.bytes * sizeof(Cell));
  regions.erase(it);
}

void BeginKernel(const char* name) {
  kernel_name = name;
  kernel_generation = ++block_generation;
  first_finding.clear();
}

void BeginBlock(uint32_t number) {
  block = std::min(number, kMaxBlock);
  // Shared and device memory count on one clock, so that no generation is used twice.
  ++block_generation;
}

void SetThread(int number, uint32_t barriers_passed, uint32_t operations_passed) {
  thread = static_cast<uint32_t>(number);
  barriers = std::min(barriers_passed, kMaxBarriers);
  warp_operations = std::min(operations_passed, kMaxWarpOperations);
  inside = true;
}

void EndKernel() { inside = false; }

void Access(const void* address, size_t bytes, bool is_write, bool is_atomic, const void* program_counter) {
  if (!inside || !enabled) return;
  const char* byte = static_cast<const char*>(address);
  uint32_t generation = 0;
  const uint32_t pc = static_cast<uint32_t>(static_cast<const char*>(program_counter) - program_start);
  Cell* cell = Find(byte, bytes, generation);
  if (cell == nullptr) {
    if (InDeviceRange(address)) ReportOutOfBounds(is_write, bytes, pc);
    return;
  }
  const Access64 own = {block, thread, barriers, warp_operations, is_atomic, true};
  for (size_t i = 0; i < bytes; ++i, ++cell) {
    if (cell->generation != generation) {
      *cell = Cell();
      cell->generation = generation;
    }
    if (!IsOrdered(cell->write, is_atomic)) {
      return Report(is_write ? "writes what was written by" : "reads what was written by", byte + i, cell->write,
                    cell->write_pc, pc);
    }
    if (!is_write) {
      if (cell->reads[0].thread != thread || cell->reads[0].block != block || !cell->reads[0].taken) {
        cell->reads[1] = cell->reads[0];
        cell->read_pcs[1] = cell->read_pcs[0];
      }
      cell->reads[0] = own;
      cell->read_pcs[0] = pc;
      continue;
    }
    for (int r = 0; r < 2; ++r) {
      if (!IsOrdered(cell->reads[r], is_atomic)) {
        return Report("writes what was read by", byte + i, cell->reads[r], cell->read_pcs[r], pc);
      }
    }
    cell->write = own;
    cell->write_pc = pc;
    cell->reads[0] = cell->reads[1] = Access64();
  }
}

const char* FirstFinding() { return first_finding.c_str(); }
int64_t NumRaces() { return num_races; }
void Reset() { num_races = 0, first_finding.clear(); }
void Enable(bool on) { enabled = on; }
bool HooksCalled() { return hooks_called; }

}  // namespace cuda_emulator::race

// What -fsanitize=thread calls. Not defined where the real thread sanitizer is linked.
#if !defined(__SANITIZE_THREAD__)
namespace {
using cuda_emulator::race::Access;
}
#define HOOK_PLAIN(bytes)                                                                                     \
  void __tsan_read##bytes(void* p) { Access(p, bytes, false, false, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(void* p) { Access(p, bytes, true, false, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(void* p) { Access(p, bytes, false, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(void* p) { Access(p, bytes, true, false, __builtin_return_address(0)); } \
  void __tsan_volatile_read##bytes(void* p) { Access(p, bytes, false, true, __builtin_return_address(0)); }   \
  void __tsan_volatile_write##bytes(void* p) { Access(p, bytes, true, true, __builtin_return_address(0)); }
#define HOOK_FETCH(bits, T, name, update)                         \
  T __tsan_atomic##bits##_##name(T* p, T v, int) {                \
    Access(p, bits / 8, true, true, __builtin_return_address(0)); \
    const T old = *p;                                             \
    *p = static_cast<T>(update);                                  \
    return old;                                                   \
  }
#define HOOK_ATOMIC(bits, T)                                                            \
  HOOK_FETCH(bits, T, exchange, v)                                                      \
  HOOK_FETCH(bits, T, fetch_add, old + v)                                               \
  HOOK_FETCH(bits, T, fetch_sub, old - v)                                               \
  HOOK_FETCH(bits, T, fetch_or, old | v)                                                \
  HOOK_FETCH(bits, T, fetch_and, old& v)                                                \
  T __tsan_atomic##bits##_load(const T* p, int) {                                       \
    Access(p, bits / 8, false, true, __builtin_return_address(0));                      \
    return *p;                                                                          \
  }                                                                                     \
  void __tsan_atomic##bits##_store(T* p, T v, int) {                                    \
    Access(p, bits / 8, true, true, __builtin_return_address(0));                       \
    *p = v;                                                                             \
  }                                                                                     \
  int __tsan_atomic##bits##_compare_exchange_strong(T* p, T* expected, T v, int, int) { \
    Access(p, bits / 8, true, true, __builtin_return_address(0));                       \
    if (*p == *expected) return *p = v, 1;                                              \
    *expected = *p;                                                                     \
    return 0;                                                                           \
  }                                                                                     \
  T __tsan_atomic##bits##_compare_exchange_val(T* p, T expected, T v, int, int) {       \
    Access(p, bits / 8, true, true, __builtin_return_address(0));                       \
    const T old = *p;                                                                   \
    if (old == expected) *p = v;                                                        \
    return old;                                                                         \
  }
extern "C" {
HOOK_PLAIN(1)
HOOK_PLAIN(2)
HOOK_PLAIN(4)
HOOK_PLAIN(8)
HOOK_PLAIN(16)
HOOK_ATOMIC(8, unsigned char)
HOOK_ATOMIC(16, unsigned short)
HOOK_ATOMIC(32, unsigned)
HOOK_ATOMIC(64, unsigned long)
void __tsan_read_range(void* p, size_t n) { Access(p, n, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { Access(p, n, true, false, __builtin_return_address(0)); }
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() { cuda_emulator::race::hooks_called = true; }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
#undef HOOK_PLAIN
#undef HOOK_FETCH
#undef HOOK_ATOMIC
#endif
