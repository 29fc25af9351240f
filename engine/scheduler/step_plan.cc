#include "engine/scheduler/step_plan.h"

#include "engine/scheduler/wire.h"

namespace cairn {
namespace {

void PutCompactions(WireWriter& out, const std::vector<Compaction>& compactions) {
  out.Put<uint64_t>(compactions.size());
  for (const Compaction& compaction : compactions) {
    out.Put(compaction.sequence);
    out.PutVector(compaction.kept);
  }
}

std::vector<Compaction> GetCompactions(WireReader& in) {
  std::vector<Compaction> compactions(in.Get<uint64_t>());
  for (Compaction& compaction : compactions) {
    compaction.sequence = in.Get<int32_t>();
    compaction.kept = in.GetVector<int32_t>();
  }
  return compactions;
}

}  // namespace

int64_t StepPlan::num_tokens() const {
  int64_t tokens = 0;
  for (const SequenceStep& sequence : sequences) tokens += static_cast<int64_t>(sequence.tokens.size());
  return tokens;
}

bool StepPlan::compresses() const {
  return std::any_of(sequences.begin(), sequences.end(),
                     [](const SequenceStep& step) { return step.compress || step.observe; });
}

std::string StepPlan::Serialize() const {
  WireWriter out;
  out.Put(step);
  out.Put(shutdown);
  out.PutVector(closes);
  PutCompactions(out, compactions);
  out.Put<uint64_t>(opens.size());
  for (const OpenSequence& open : opens) {
    out.Put(open.sequence);
    out.PutString(open.request_id);
    out.Put(open.sampler);
    out.Put(open.prompt_length);
    out.PutVector(open.masked_tokens);
    out.PutVector(open.history);
  }
  out.Put<uint64_t>(sequences.size());
  for (const SequenceStep& sequence : sequences) {
    out.Put(sequence.sequence);
    out.Put(sequence.position);
    out.PutVector(sequence.tokens);
    out.Put(sequence.sample);
    out.Put(sequence.compress);
    out.Put(sequence.observe);
  }
  return out.Take();
}

StepPlan StepPlan::Parse(const std::string& bytes) {
  WireReader in(bytes);
  StepPlan plan;
  plan.step = in.Get<int64_t>();
  plan.shutdown = in.Get<bool>();
  plan.closes = in.GetVector<int32_t>();
  plan.compactions = GetCompactions(in);
  plan.opens.resize(in.Get<uint64_t>());
  for (OpenSequence& open : plan.opens) {
    open.sequence = in.Get<int32_t>();
    open.request_id = in.GetString();
    open.sampler = in.Get<SamplerSpec>();
    open.prompt_length = in.Get<int32_t>();
    open.masked_tokens = in.GetVector<int32_t>();
    open.history = in.GetVector<int32_t>();
  }
  plan.sequences.resize(in.Get<uint64_t>());
  for (SequenceStep& sequence : plan.sequences) {
    sequence.sequence = in.Get<int32_t>();
    sequence.position = in.Get<int32_t>();
    sequence.tokens = in.GetVector<int32_t>();
    sequence.sample = in.Get<bool>();
    sequence.compress = in.Get<bool>();
    sequence.observe = in.Get<bool>();
  }
  CAIRN_CHECK(in.at_end(), "a StepPlan has trailing bytes");
  return plan;
}

std::string StepResult::Serialize() const {
  WireWriter out;
  out.Put(step);
  out.Put<uint64_t>(tokens.size());
  for (const Token& token : tokens) {
    out.Put(token.sequence);
    out.Put(token.sampled.token);
    out.Put(token.sampled.logprob);
    out.Put<uint64_t>(token.sampled.top.size());
    for (const auto& [id, logprob] : token.sampled.top) {
      out.Put(id);
      out.Put(logprob);
    }
  }
  PutCompactions(out, compactions);
  return out.Take();
}

StepResult StepResult::Parse(const std::string& bytes) {
  WireReader in(bytes);
  StepResult result;
  result.step = in.Get<int64_t>();
  result.tokens.resize(in.Get<uint64_t>());
  for (Token& token : result.tokens) {
    token.sequence = in.Get<int32_t>();
    token.sampled.token = in.Get<int32_t>();
    token.sampled.logprob = in.Get<float>();
    token.sampled.top.resize(in.Get<uint64_t>());
    for (auto& [id, logprob] : token.sampled.top) {
      id = in.Get<int32_t>();
      logprob = in.Get<float>();
    }
  }
  result.compactions = GetCompactions(in);
  CAIRN_CHECK(in.at_end(), "a StepResult has trailing bytes");
  return result;
}

}  // namespace cairn
