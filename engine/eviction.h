// What was kept of a sequence: the record of one compaction of one KV head, for those who look (EngineOptions'
// record_evictions).
#ifndef CAIRN_ENGINE_EVICTION_H_
#define CAIRN_ENGINE_EVICTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/scheduler/wire.h"

namespace cairn {

struct Eviction {
  std::string request_id;
  int32_t index = 0;                    // which of the n answers
  int64_t logical_length = 0;           // tokens fed before the compaction
  int32_t layer = 0, kv_head = 0;       // of the model
  std::vector<int32_t> slots = {};      // kept, ascending
  std::vector<int32_t> positions = {};  // of the tokens in them
  // Against the full cache (engine/runner/shadow_cache.h); 0 without EngineOptions::shadow_full.
  float mass_lost = 0, output_error = 0;
};

inline std::string SerializeEvictions(const std::vector<Eviction>& evictions) {
  WireWriter out;
  out.Put<uint64_t>(evictions.size());
  for (const Eviction& eviction : evictions) {
    out.PutString(eviction.request_id);
    out.Put(eviction.index);
    out.Put(eviction.logical_length);
    out.Put(eviction.layer);
    out.Put(eviction.kv_head);
    out.PutVector(eviction.slots);
    out.PutVector(eviction.positions);
    out.Put(eviction.mass_lost);
    out.Put(eviction.output_error);
  }
  return out.Take();
}

inline std::vector<Eviction> ParseEvictions(const std::string& bytes) {
  WireReader in(bytes);
  std::vector<Eviction> evictions(in.Get<uint64_t>());
  for (Eviction& eviction : evictions) {
    eviction.request_id = in.GetString();
    eviction.index = in.Get<int32_t>();
    eviction.logical_length = in.Get<int64_t>();
    eviction.layer = in.Get<int32_t>();
    eviction.kv_head = in.Get<int32_t>();
    eviction.slots = in.GetVector<int32_t>();
    eviction.positions = in.GetVector<int32_t>();
    eviction.mass_lost = in.Get<float>();
    eviction.output_error = in.Get<float>();
  }
  return evictions;
}

}  // namespace cairn

#endif  // CAIRN_ENGINE_EVICTION_H_
